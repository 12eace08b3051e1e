#!/bin/sh
# redis-cli as the user admin: ./redis-admin.sh INFO persistence
set -eu
cd "$(dirname "$0")"
REDISCLI_AUTH=$(cat secrets/redis-admin.password) exec redis-cli --tls --cacert secrets/servers-ca.crt -h localhost -p 6379 --user admin --no-auth-warning "$@"
