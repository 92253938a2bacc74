#!/bin/sh
# Makes the secrets that docker-compose.yml mounts: sh deploy/make-secrets.sh [folder]
# What exists is kept, so that running it again is safe. Needs a POSIX shell and /dev/urandom, or Node.
#
# Compose mounts each file with the owner and mode it has here, and the programs in the containers run as users of their own.
# So the files are readable by all, and the folder around them only by you: nobody else on this machine gets to the files.
set -eu
umask 077
folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
chmod 700 "$folder"

# 32 random bytes in hex, which needs no escaping in a URL.
random_hex() {
  if [ -r /dev/urandom ] && command -v od > /dev/null; then
    od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n'
  else
    node -p 'require("node:crypto").randomBytes(32).toString("hex")' | tr -d '\n'
  fi
}

random_base64() {
  if [ -r /dev/urandom ] && command -v base64 > /dev/null; then
    head -c 32 /dev/urandom | base64 | tr -d '\n'
  else
    node -p 'require("node:crypto").randomBytes(32).toString("base64")' | tr -d '\n'
  fi
}

# write NAME VALUE: an empty value means that its source failed. The rename leaves no half-written secret behind.
write() {
  if [ -e "$folder/$1" ]; then
    echo "kept    $folder/$1"
    return
  fi
  [ -n "$2" ] || { echo "make-secrets: no random bytes for $1" >&2; exit 1; }
  printf '%s' "$2" > "$folder/.$1"
  chmod 444 "$folder/.$1"
  mv "$folder/.$1" "$folder/$1"
  echo "created $folder/$1"
}

write postgres_password "$(random_hex)"
write redis_password "$(random_hex)"
write database_url "postgresql://freshet:$(cat "$folder/postgres_password")@postgres:5432/freshet"
write redis_url "redis://:$(cat "$folder/redis_password")@redis:6379"
write encryption_keys "k1:$(random_base64)"
write admin_key "$(random_hex)"
echo "Keep a copy of encryption_keys apart from the database's backups: without it the stored tokens cannot be read."
