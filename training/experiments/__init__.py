"""Experiments: the same run many times over, with one thing changed, and what may be said of it.

seeds.py has the statistics, runs.py the folders of runs that are finished, broken off or to come;
a module an experiment has its recipes and figures, and <experiment>_page.py its page.
"""
