#!/bin/sh
# Makes and replaces the secrets of this folder with openssl. `./secrets.sh make` first; README.md has the rest, step by step.
#
#   authorities/  what signs: keys of the authorities and of the issuer of tokens. Keep it away from the gateway's machine
#   secrets/      what gateway, Redis and Alertmanager read
#   callers/      what callers hold: their certificates and keys, and the authorities of the servers
set -eu
umask 077
cd "$(dirname "$0")"

usage() {
  cat >&2 <<'END'
usage: ./secrets.sh make                            everything that is not there yet
       ./secrets.sh server gateway|redis            a new certificate and key of a server
       ./secrets.sh caller NAME                     a new certificate and key of a caller, spiffe://example.com/NAME
       ./secrets.sh revoke FILE                     put a caller's certificate on the revocation list
       ./secrets.sh revocations                     a new revocation list, which is valid for 30 days
       ./secrets.sh new-authority servers|clients   another authority signs from now on; both are trusted
       ./secrets.sh end-authority servers|clients   only that one is trusted
       ./secrets.sh new-redis-password              another password of Redis' user docpreview; both are valid
       ./secrets.sh end-redis-password              only that one is valid
       ./secrets.sh put FILE < NEW                  replace a file at once, such as secrets/cloud-keys.yaml
       ./secrets.sh admin-password                  another password of Redis' user admin
       ./secrets.sh new-ledger-key                  another secret for creates, which the replicas know and do not use yet
       ./secrets.sh use-ledger-key                  that one is used, the earlier one is known
       ./secrets.sh end-ledger-key                  only that one is known
END
  exit 2
}

fail() {
  echo "$1" >&2
  exit 1
}

has() { for wanted in "$@"; do [ -s "$wanted" ] || return 1; done; }

# Files appear whole and at once, so that nobody reads half of one: they are made in a folder beside them, which goes at the end.
work=
clean() { if [ "$work" ]; then rm -rf "$work"; fi; }
begin() { clean && work=$(mktemp -d "$(dirname "$1")/.new.XXXXXX"); }
trap 'clean; if [ -d authorities ]; then as_folder authorities authorities; fi' EXIT
trap 'exit 1' HUP INT TERM

as_folder() { # FOLDER WHAT: what root makes belongs to the owner of the folder that it is in, whom gateway or Redis run as
  if [ "$(id -u)" = 0 ]; then chown -R --reference="$1" "$2"; fi
}

place() { # NEW FILE, with the mode of the file before: containers read policy.yaml as another user
  if [ -e "$2" ]; then chmod --reference="$2" "$1"; fi
  as_folder "$(dirname "$2")" "$1"
  mv -T "$1" "$2"
}

into() { # FILE COMMAND...: what the command prints. If it fails or prints nothing, the file stays as it was
  file=$1
  shift
  begin "$file"
  "$@" > "$work/new"
  grep -q '[^[:space:]]' "$work/new" || fail "$file: stays as it was, for there is nothing to put into it"
  place "$work/new" "$file"
}

put() { into "$1" cat; }

# openssl is told to be silent only as long as it succeeds.
quietly() { said=$("$@" 2>&1) || fail "$said"; }

key() { quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

authority() { # its name: a key and a certificate that signs
  key "authorities/$1.key"
  quietly openssl req -x509 -new -key "authorities/$1.key" -days 1825 -subj "/O=Example/CN=${1%-next} $(openssl rand -hex 4)" \
    -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign -out "authorities/$1.crt"
  : > "authorities/$1.revoked"
  echo 01 > "authorities/$1.number"
}

whole() { # servers|clients: all of the authority is there
  for kind in key crt revoked number; do
    [ -e "authorities/$1.$kind" ] ||
      fail "authorities/$1.$kind: is missing. ./secrets.sh make makes it the first time; later bring it back from where you keep it"
  done
}

authorities() { # servers|clients: the newest and, until it is ended, the one before
  for name in "$1" "$1-before"; do [ ! -e "authorities/$name.key" ] || echo "$name"; done
}

parts() { for name in $2; do cat "authorities/$name.$1"; done; }

trust() { # servers|clients, authorities: these are the ones that the other side believes
  into "secrets/$1-ca.crt" parts crt "$2"
  if [ "$1" = servers ]; then into callers/servers-ca.crt cat secrets/servers-ca.crt; else revoked "$2"; fi
}

signed() { # authority, extensions, where to: a key and a certificate for 90 days
  whole "$1"
  begin "$3"
  key "$work/key"
  printf '%b\n' "$2" basicConstraints=critical,CA:FALSE keyUsage=critical,digitalSignature > "$work/extensions"
  quietly openssl req -new -key "$work/key" -subj "/O=Example/CN=$(basename "$3")" -out "$work/request"
  quietly openssl x509 -req -in "$work/request" -CA "authorities/$1.crt" -CAkey "authorities/$1.key" -days 90 \
    -extfile "$work/extensions" -out "$work/crt"
  place "$work/key" "$3.key"
  place "$work/crt" "$3.crt"
}

server() { # by the names under which it is reached
  case $1 in gateway) names=DNS:docpreview.example.com,DNS:localhost ;; redis) names=DNS:localhost ;; *) usage ;; esac
  signed servers "subjectAltName=$names,IP:127.0.0.1\nextendedKeyUsage=serverAuth" "secrets/$1"
}

certified() {
  case $1 in .* | *[!A-Za-z0-9._-]* | servers-ca) fail "$1: is no name of a caller, which has letters, digits and . _ - only" ;; esac
  signed clients "subjectAltName=URI:spiffe://example.com/$1\nextendedKeyUsage=clientAuth" "callers/$1"
}

records() { # authority, arguments of `openssl ca`: its records of what it has revoked
  of=authorities/$1
  shift
  printf '[ca]\ndefault_ca=it\n[it]\ndatabase=%s\ncrlnumber=%s\ndefault_md=sha256\n' "$of.revoked" "$of.number" > "$of.cnf"
  quietly openssl ca -config "$of.cnf" -keyfile "$of.key" -cert "$of.crt" "$@"
}

revoked() { # authorities: the revocation list of each
  for each in $1; do records "$each" -gencrl -crldays 30 -out "authorities/$each.crl"; done
  into secrets/clients.crl parts crl "$1"
}

revocations() {
  whole clients
  revoked "$(authorities clients)"
}

revoke() {
  whole clients
  for each in $(authorities clients); do
    if openssl verify -CAfile "authorities/$each.crt" "$1" > /dev/null 2>&1; then
      records "$each" -revoke "$1"
      revocations
      return
    fi
  done
  fail "$1: is no certificate of these authorities"
}

sha256() { digest=$(printf %s "$1" | openssl dgst -sha256 -r) && echo "${digest%% *}"; }

redis_user() { # what Redis changes of a user, now and in its file
  { ./redis-admin.sh ACL SETUSER "$@" && ./redis-admin.sh ACL SAVE; } > /dev/null ||
    fail "Redis refused to change the user $1, or to write that to secrets/redis-users.acl. Correct that, and repeat the command"
}

gateways_password() { # its variable, for replicas that start from now on
  into secrets/redis.env echo "DOCPREVIEW_SHARED_STATE__URL=rediss://docpreview:$1@localhost:6379/0?ssl_ca_certs=secrets/servers-ca.crt"
}

password_of_gateways() {
  sed -n 's|.*docpreview:\([^@]*\)@.*|\1|p' secrets/redis.env | grep . || fail "secrets/redis.env: has no password of the user docpreview"
}

new_redis_password() {
  password=$(openssl rand -hex 24)
  redis_user docpreview "#$(sha256 "$password")"
  gateways_password "$password"
}

end_redis_password() {
  password=$(password_of_gateways)
  hash=$(sha256 "$password")
  ./redis-admin.sh ACL GETUSER docpreview | grep -q "$hash" ||
    fail "Redis does not take the password of secrets/redis.env: first ./secrets.sh new-redis-password, and restart all replicas"
  redis_user docpreview resetpass "#$hash"
}

admin_password() {
  # Both are valid until the file has the new one.
  password=$(openssl rand -hex 24)
  redis_user admin "#$(sha256 "$password")"
  into secrets/redis-admin.password echo "$password"
  redis_user admin resetpass "#$(sha256 "$password")"
}

lines() { for line in "$@"; do sed -n "${line}p" secrets/ledger.key; done; }

ledger() { into secrets/ledger.key lines "$@"; } # numbers of lines, in their new order: the first is used, both are known

another_ledger_key() {
  lines 1
  openssl rand -base64 32
}

new_ledger_key() {
  [ "$(wc -l < secrets/ledger.key)" = 1 ] || fail "first ./secrets.sh end-ledger-key: it ends the last replacement"
  into secrets/ledger.key another_ledger_key
}

use_ledger_key() {
  [ "$(wc -l < secrets/ledger.key)" = 2 ] || fail "first ./secrets.sh new-ledger-key, and restart all replicas"
  ledger 2 1
}

end_ledger_key() { ledger 1; }

redis_users() {
  if has secrets/redis-users.acl; then # which has hashes of passwords only
    has secrets/redis-admin.password ||
      fail "secrets/redis-admin.password: is missing. Stop Redis, rm secrets/redis-users.acl, ./secrets.sh make, start Redis"
    has secrets/redis.env || fail "secrets/redis.env: is missing. While Redis runs: ./secrets.sh new-redis-password, and restart all replicas"
    return
  fi
  has secrets/redis-admin.password || into secrets/redis-admin.password openssl rand -hex 24
  password=$(openssl rand -hex 24)
  has secrets/redis.env || gateways_password "$password"
  admin=$(cat secrets/redis-admin.password)
  gateway=$(password_of_gateways)
  # Nobody can log in as `default`, which is off, but Redis checks its rights again when a restart reads transactions back
  # from the append-only file. Those that it lacks are left out, and with them every record of a create:
  # https://github.com/redis/redis/issues/14541, https://github.com/valkey-io/valkey/issues/3983.
  # The gateway has its own keys and channels, and of the commands of administrators those that say how Redis is set.
  into secrets/redis-users.acl cat <<END
user default off ~* &* +@all
user admin on #$(sha256 "$admin") ~* &* +@all
user docpreview on #$(sha256 "$gateway") ~docpreview:* &docpreview:* +@all -@admin -@dangerous +info +config|get +acl|dryrun
END
}

new_folder() {
  mkdir "$1"
  as_folder . "$1"
}

make() {
  for folder in authorities secrets callers state-1 state-2 redis-data; do
    [ -d "$folder" ] || new_folder "$folder"
  done
  for side in servers clients; do
    has "authorities/$side.crt" || has "secrets/$side-ca.crt" || authority "$side"
    whole "$side"
    has "secrets/$side-ca.crt" || trust "$side" "$(authorities "$side")"
  done
  has callers/servers-ca.crt || into callers/servers-ca.crt cat secrets/servers-ca.crt
  has secrets/clients.crl || revocations
  for each in gateway redis; do has "secrets/$each.crt" "secrets/$each.key" || server "$each"; done
  for each in web archive; do has "callers/$each.crt" "callers/$each.key" || certified "$each"; done
  has secrets/ledger.key || into secrets/ledger.key openssl rand -base64 32
  # The emulator's keys, and receivers of alerts that do not exist: put your own in their place.
  for each in cloud-keys cloud-writer; do
    has "secrets/$each.yaml" ||
      into "secrets/$each.yaml" printf 'secret_id: example-secret-id\nsecret_key: EXAMPLEsecretKEY00000000000000000\n'
  done
  has secrets/pager.key || into secrets/pager.key printf example-routing-key
  has secrets/chat.url || into secrets/chat.url printf http://127.0.0.1:9099/chat
  redis_users
}

new_authority() {
  whole "$1"
  [ ! -e "authorities/$1-before.crt" ] || fail "first ./secrets.sh end-authority $1: it ends the last replacement"
  authority "$1-next"
  trust "$1" "$1-next $1"
  for kind in key crt revoked number; do
    mv "authorities/$1.$kind" "authorities/$1-before.$kind"
    mv "authorities/$1-next.$kind" "authorities/$1.$kind"
  done
  rm -f "authorities/$1-next".*
}

end_authority() {
  whole "$1"
  [ -e "authorities/$1-before.crt" ] || fail "no authority is to be ended: first ./secrets.sh new-authority $1"
  used=
  for each in secrets/*.crt callers/*.crt; do
    if openssl verify -CAfile "authorities/$1-before.crt" "$each" > /dev/null 2>&1; then used="$used $each"; fi
  done
  [ -z "$used" ] || fail "the authority that is to end has signed$used: first replace them (./secrets.sh server|caller NAME) or remove them"
  trust "$1" "$1"
  rm -f "authorities/$1-before".*
}

case ${1-}:${2-} in
  make: | revocations: | new-redis-password: | end-redis-password: | admin-password: | new-ledger-key: | use-ledger-key: | end-ledger-key:)
    "$(echo "$1" | tr - _)" ;;
  caller:?*) certified "$2" ;;
  server:?* | revoke:?* | put:?*) "$1" "$2" ;;
  new-authority:servers | new-authority:clients | end-authority:servers | end-authority:clients) "$(echo "$1" | tr - _)" "$2" ;;
  *) usage ;;
esac
