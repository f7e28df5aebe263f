"""What other programs kept of people, read so that it can be enrolled here.

embeddings.py reads embeddings, which are of use in their own space alone; compreface.py reads
CompreFace's database, whose photographs are enrolled anew. Nothing here touches a gallery but
`enroll_people`.
"""
