#!/usr/bin/env bash
# redis-cli, redis-benchmark and a bare socket. Called as `cli.sh HOST:PORT [HOST:PORT ...]`; several addresses are members of one cluster.
set -euo pipefail

host=${1%:*} port=${1##*:} db=13
cli() { redis-cli -h "$host" -p "$port" -n "$db" "$@"; }

# same WHAT WANTED GOT
same() {
  [ "$2" = "$3" ] || { printf '%s: wanted <%s>, got <%s>\n' "$1" "$2" "$3" >&2; exit 1; }
}

same flushdb OK "$(cli flushdb)"
same ping PONG "$(cli ping)"
same 'set px nx' OK "$(cli set k v px 100000 nx)"
same 'set nx again' '(nil)' "$(cli --no-raw set k w nx)"
same 'set get keepttl' '"v"' "$(cli --no-raw set k x get keepttl)"
same 'ttl is kept' yes "$( (( $(cli pttl k) > 90000 )) && echo yes)"
same 'wrong type' '(error) WRONGTYPE Operation against a key holding the wrong kind of value' "$(cli --no-raw hget k f)"
same 'arity' "(error) ERR wrong number of arguments for 'get' command" "$(cli --no-raw get)"
same 'map in RESP2' $'f\n1\ng\n2' "$(cli hset h f 1 g 2 >/dev/null; cli hgetall h)"
same 'map in RESP3' $'1# "f" => "1"\n2# "g" => "2"' "$(cli -3 --no-raw hgetall h)"
head -c 100000 /dev/urandom | base64 -w0 > "$TMP/value"
same 'a large value from standard input' OK "$(cli -x set large < "$TMP/value")"
same 'and back' "$(cat "$TMP/value")" "$(cli get large)"
same 'binary by escapes' '"\x00\r\n\xff"' "$(printf '%s\n' 'set bin "\x00\r\n\xff"' 'get bin' | cli --no-raw | tail -n 1)"
same 'counts' 3 "$(cli -r 3 incr n | tail -n 1)"

# Mass insertion by --pipe ends with an ECHO of its own.
for i in $(seq 1 1000); do printf 'SET pipe:%d %d\r\n' "$i" "$i"; done > "$TMP/pipe"
same '--pipe' 'errors: 0, replies: 1000' "$(cli --pipe < "$TMP/pipe" | tail -n 1)"
same '--scan' 1000 "$(cli --scan --pattern 'pipe:*' | sort -u | wc -l)"

# Inline commands, pipelined, on a bare socket: quotes and escapes as in a terminal.
exec 3<>"/dev/tcp/$host/$port"
printf 'SELECT %d\r\nSET "in line" "a\\x41 \\"b"\r\nGET "in line"\r\n\r\nPING\r\n' "$db" >&3
for wanted in +OK +OK '$5' 'aA "b' +PONG; do
  IFS= read -r -t 10 got <&3
  same 'inline' "$wanted" "${got%$'\r'}"
done
exec 3>&-

for address in "${@:2}"; do
  other() { redis-cli -h "${address%:*}" -p "${address##*:}" -n "$db" "$@"; }
  for turn in 1 2 3 4 5; do
    token=$(printf 'set across %d\nplenary token\n' "$turn" | cli | tail -n 1)
    same "read at token $token on $address" "$turn" "$(printf 'plenary waitfor %s\nget across\n' "$token" | other | tail -n 1)"
  done
done
cli flushdb > /dev/null
echo "redis-cli: ok"

# It exits with 1 at the first error a server answers. In database 13 like the rest.
for pipeline in 1 16; do
  redis-benchmark -h "$host" -p "$port" --dbnum "$db" -n 2000 -c 20 -P "$pipeline" -r 1000 -q \
    -t ping_inline,ping_mbulk,set,get,incr,hset,mset > "$TMP/benchmark"
  tests=$(tr '\r' '\n' < "$TMP/benchmark" | grep -c 'requests per second, p50')
  same "redis-benchmark -P $pipeline: tests that ended" 7 "$tests"
done
same 'all sets of the benchmark are there' yes "$( (( $(cli dbsize) > 500 )) && echo yes)"
cli flushdb > /dev/null
echo "redis-benchmark: ok"
