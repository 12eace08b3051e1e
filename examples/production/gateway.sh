#!/bin/sh
# shellcheck disable=SC1090,SC1091
# A command of the gateway with the variables of a replica, as systemd and compose set them: ./gateway.sh 1 serve
set -eu
cd "$(dirname "$0")"
case ${1-} in '' | *[!0-9]*) echo "usage: ./gateway.sh NUMBER serve|check-config|doctor|..." >&2; exit 2 ;; esac
fail() { echo "$1" >&2; exit 1; }
[ -e "replica-$1.env" ] || fail "replica-$1.env: is missing. Copy replica-1.env, with ports and a folder of its own"
[ -e secrets/redis.env ] || fail "secrets/redis.env: is missing, or of another user. As the owner of the folder run ./secrets.sh make"
set -a
. "./replica-$1.env"
. ./secrets/redis.env
if [ -e emulator.env ]; then . ./emulator.env; fi
set +a
export DOCPREVIEW_CONFIG=gateway.yaml
shift
exec docpreview-gateway "$@"
