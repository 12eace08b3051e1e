#!/bin/sh
# redis-cli as the user admin, which fails where Redis answers with an error: ./redis-admin.sh INFO persistence
set -eu
cd "$(dirname "$0")"
REDISCLI_AUTH=$(cat secrets/redis-admin.password)
export REDISCLI_AUTH
exec redis-cli -e --tls --cacert secrets/servers-ca.crt -h localhost -p 6379 --user admin --no-auth-warning "$@"
