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

# Files appear whole and at once, so that nobody reads half of one: `COMMAND | into FILE`, and the pairs of `signed`.
into() { cat > "$1.new" && place "$1"; }

put() { # with the mode of the file before: containers read policy.yaml as another user
  cat > "$1.new"
  if [ -e "$1" ]; then chmod --reference="$1" "$1.new"; fi
  place "$1"
}

place() { # FILE.new becomes FILE; what root makes belongs to the owner of the folder, whom gateway or Redis run as
  if [ "$(id -u)" = 0 ]; then chown --reference="$(dirname "$1")" "$1.new"; fi
  mv "$1.new" "$1"
}

# openssl is told to be silent only as long as it succeeds.
quietly() { "$@" 2> authorities/errors || { cat authorities/errors >&2; exit 1; }; }

key() { quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

authority() { # servers|clients: a key and a certificate that signs
  key "authorities/$1.key"
  quietly openssl req -x509 -new -key "authorities/$1.key" -days 1825 -subj "/O=Example/CN=$1 $(openssl rand -hex 4)" \
    -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign -out "authorities/$1.crt"
  : > "authorities/$1.revoked"
  echo 01 > "authorities/$1.number"
}

trust() { # servers|clients: the other side believes the newest authority and, until it is ended, the one before
  before=authorities/$1-before.crt
  [ -e "$before" ] || before=
  # shellcheck disable=SC2086 # one file or none
  cat "authorities/$1.crt" $before | into "secrets/$1-ca.crt"
  if [ "$1" = servers ]; then into callers/servers-ca.crt < secrets/servers-ca.crt; else revocations; fi
}

signed() { # authority, extensions, where to: a key and a certificate for 90 days
  key "$3.key.new"
  printf '%b\n' "$2" basicConstraints=critical,CA:FALSE keyUsage=critical,digitalSignature > "$3.extensions"
  quietly openssl req -new -key "$3.key.new" -subj "/O=Example/CN=$(basename "$3")" -out "$3.request"
  quietly openssl x509 -req -in "$3.request" -CA "authorities/$1.crt" -CAkey "authorities/$1.key" -days 90 \
    -extfile "$3.extensions" -out "$3.crt.new"
  rm "$3.extensions" "$3.request"
  place "$3.key"
  place "$3.crt"
}

server() { # by the names under which it is reached
  case $1 in gateway) names=DNS:docpreview.example.com,DNS:localhost ;; redis) names=DNS:localhost ;; *) usage ;; esac
  signed servers "subjectAltName=$names,IP:127.0.0.1\nextendedKeyUsage=serverAuth" "secrets/$1"
}

certified() { signed clients "subjectAltName=URI:spiffe://example.com/$1\nextendedKeyUsage=clientAuth" "callers/$1"; }

records() { # authority, arguments of `openssl ca`: its records of what it has revoked
  name=authorities/$1
  shift
  printf '[ca]\ndefault_ca=it\n[it]\ndatabase=%s\ncrlnumber=%s\ndefault_md=sha256\n' "$name.revoked" "$name.number" > "$name.cnf"
  quietly openssl ca -config "$name.cnf" -keyfile "$name.key" -cert "$name.crt" "$@"
}

clients() { for name in clients clients-before; do [ ! -e "authorities/$name.key" ] || echo "$name"; done; }

revocations() {
  for each in $(clients); do records "$each" -gencrl -crldays 30 -out "authorities/$each.crl"; done
  for each in $(clients); do cat "authorities/$each.crl"; done | into secrets/clients.crl
}

revoke() {
  for each in $(clients); do
    if openssl verify -CAfile "authorities/$each.crt" "$1" > /dev/null 2>&1; then
      records "$each" -revoke "$1"
      revocations
      return
    fi
  done
  echo "$1: is no certificate of these authorities" >&2
  exit 1
}

sha256() { printf %s "$1" | openssl dgst -sha256 -r | cut -d' ' -f1; }

redis_user() { # what Redis changes of a user, now and in its file
  ./redis-admin.sh ACL SETUSER "$@" > /dev/null
  ./redis-admin.sh ACL SAVE > /dev/null
}

gateways_password() { # its variable, for replicas that start from now on
  echo "DOCPREVIEW_SHARED_STATE__URL=rediss://docpreview:$1@localhost:6379/0?ssl_ca_certs=secrets/servers-ca.crt" | into secrets/redis.env
}

new_redis_password() {
  new=$(openssl rand -hex 24)
  redis_user docpreview "#$(sha256 "$new")"
  gateways_password "$new"
}

end_redis_password() { redis_user docpreview resetpass "#$(sha256 "$(sed 's|.*docpreview:\([^@]*\)@.*|\1|' secrets/redis.env)")"; }

admin_password() {
  # Both are valid until the file has the new one.
  new=$(openssl rand -hex 24)
  redis_user admin "#$(sha256 "$new")"
  echo "$new" | into secrets/redis-admin.password
  redis_user admin resetpass "#$(sha256 "$(cat secrets/redis-admin.password)")"
}

ledger() { # numbers of lines, in their new order: the first is used, both are known
  for line in "$@"; do sed -n "${line}p" secrets/ledger.key; done | into secrets/ledger.key
}

new_ledger_key() {
  if [ "$(wc -l < secrets/ledger.key)" != 1 ]; then echo "first ./secrets.sh end-ledger-key: it ends the last replacement" >&2; exit 1; fi
  { sed -n 1p secrets/ledger.key; openssl rand -base64 32; } | into secrets/ledger.key
}

use_ledger_key() {
  if [ "$(wc -l < secrets/ledger.key)" != 2 ]; then echo "first ./secrets.sh new-ledger-key, and restart all replicas" >&2; exit 1; fi
  ledger 2 1
}

end_ledger_key() { ledger 1; }

redis_users() {
  admin=$(openssl rand -hex 24)
  gateway=$(openssl rand -hex 24)
  echo "$admin" | into secrets/redis-admin.password
  gateways_password "$gateway"
  # Nobody can log in as `default`, which is off, but Redis checks its rights again when a restart reads transactions back
  # from the append-only file. Those that it lacks are left out, and with them every record of a create:
  # https://github.com/redis/redis/issues/14541, https://github.com/valkey-io/valkey/issues/3983.
  # The gateway has its own keys and channels, and of the commands of administrators those that say how Redis is set.
  into secrets/redis-users.acl <<END
user default off ~* &* +@all
user admin on #$(sha256 "$admin") ~* &* +@all
user docpreview on #$(sha256 "$gateway") ~docpreview:* &docpreview:* +@all -@admin -@dangerous +info +config|get +acl|dryrun
END
}

make() {
  mkdir -p authorities secrets callers state-1 state-2 redis-data
  for name in servers clients; do
    if [ ! -e "authorities/$name.crt" ]; then authority "$name"; trust "$name"; fi
  done
  for name in gateway redis; do if [ ! -e "secrets/$name.crt" ]; then server "$name"; fi; done
  for name in web archive; do if [ ! -e "callers/$name.crt" ]; then certified "$name"; fi; done
  if [ ! -e secrets/ledger.key ]; then openssl rand -base64 32 | into secrets/ledger.key; fi
  if [ ! -e secrets/redis-users.acl ]; then redis_users; fi
  # The emulator's keys, and receivers of alerts that do not exist: put your own in their place.
  for name in cloud-keys cloud-writer; do
    if [ ! -e "secrets/$name.yaml" ]; then
      printf 'secret_id: example-secret-id\nsecret_key: EXAMPLEsecretKEY00000000000000000\n' | into "secrets/$name.yaml"
    fi
  done
  if [ ! -e secrets/pager.key ]; then printf 'example-routing-key' | into secrets/pager.key; fi
  if [ ! -e secrets/chat.url ]; then printf 'http://127.0.0.1:9099/chat' | into secrets/chat.url; fi
}

new_authority() {
  for kind in key crt revoked number; do mv "authorities/$1.$kind" "authorities/$1-before.$kind"; done
  authority "$1"
  trust "$1"
}

end_authority() {
  rm -f "authorities/$1-before".*
  trust "$1"
}

case ${1-}:${2-} in
  make: | revocations: | new-redis-password: | end-redis-password: | admin-password: | new-ledger-key: | use-ledger-key: | end-ledger-key:)
    "$(echo "$1" | tr - _)" ;;
  caller:?*) certified "$2" ;;
  server:?* | revoke:?* | put:?*) "$1" "$2" ;;
  new-authority:servers | new-authority:clients | end-authority:servers | end-authority:clients) "$(echo "$1" | tr - _)" "$2" ;;
  *) usage ;;
esac
