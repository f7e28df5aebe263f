#!/bin/sh
# Makes the secrets that docker-compose.yml mounts, in docker/secrets/: those that are not there yet.
#
# The folder is its owner's alone. The files in it can be read by everybody, since Compose mounts
# them as they are and each container reads them as a user of its own.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
chmod 700 secrets

keep() { # NAME: what comes on stdin becomes the secret, unless there is one
    if [ -e "secrets/$1" ]; then
        echo "docker/secrets/$1 stays as it is"
    else
        cat > "secrets/$1.new"
        chmod 444 "secrets/$1.new"
        mv "secrets/$1.new" "secrets/$1"
        echo "docker/secrets/$1 was made"
    fi
}

random() { # 256 bits, in letters and digits
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

random | keep mien_key
random | keep grafana_password
random | keep postgres_password
# A template key: an id, and 32 bytes in base64. Keep a copy elsewhere: without it the faces are lost.
printf '%s %s\n' "$(date -u +%Y%m%dT%H%M%SZ)" "$(head -c 32 /dev/urandom | base64)" | keep mien_template_key
