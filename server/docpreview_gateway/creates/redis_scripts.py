"""Lua scripts of the store of creates in Redis or Valkey (`redis_creates`), one for each method of the port.

KEYS: `c`, hash record key -> stored record; `p`, hash of counters and leases; `d`, sorted set record key -> `look_at`,
and beyond those `a:<bucket> <job_id>` -> when the cloud created it, plus 10**12; `m`, hash of meta and indexes.

`c` holds of a record a checksum, a tab, what scripts need of it (`records.Index`, separated by tabs), a line feed, and
the packed record. A script cannot compute a MAC, so what it changes it has checked for damage only; the gateway checks
the MAC of what it reads. `m`:

    generation, seq, cloud_mark, lost_since, day
    server                    run and replication id of the server on which the last change was made
    secrets                   ids of the secrets with which something was written, each with the time of its last use
    p:<place>                 key of the record that was last begun or reopened there
    n:<place>                 number of OPEN records there
    o:<place> <number>        their keys, numbered from 1 without gaps
    i:<key>                   an OPEN record's number
    j:<bucket> <job_id>       number of records that have this job: several, when deduplication answered an id
    import:<source>           what an earlier version has left under this name was taken over

A tab separates words in the names of fields, here and in `p`: `held:`, `used:` and, during a rebuild, `kept:` (pages
that were used before it) with period and caller, `lease:` with replica, caller and day. Each of the four keys carries
the generation (`generation`; in `d` as a member that is never due). None has a TTL, so what a server evicts or loses is
a whole key, and every script notices it.

ARGV: the expected generation (`*`: any); separated by blanks the smallest `seq` that is not a loss, the `lost_since`
that is known (`*`: any), the id of the current secret, the ids of the known ones (between commas; `*`: any), and the
server's run and replication id (`*`: any); then the method's own. Answers begin with `ok` and the present `seq`, or are
`lost`, `unreadable` and a record's key, `secret` and the id of one that is not known, or `moved` and the ids of another
server.

A script that fails must have changed nothing. So it reads and computes everything before its first write, and its first
write is one that a full server refuses, unless it only deletes: the server judges the first write alone.
"""

from __future__ import annotations

from docpreview_gateway.creates.records import State
from docpreview_gateway.creates.redis_lua import CHECK, LEASING, PAGES, POSTPONING, RECORDS, STATE_FIELDS, STORE

STATE = (
    STORE
    + f"""
local f = {STATE_FIELDS}
-- What is left of a store that is not whole is no store.
if not is_whole or not seq then generation, seq = '', 0 end
return {{'ok', seq, {{generation, seq, f[1] or '', f[2] or '', f[3] or '', secrets, changed_on()}}}}
"""
)
BEGIN = (
    CHECK
    + PAGES
    + RECORDS
    + f"""
local key, value, look_at, since, alone = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[8]), ARGV[9] == 'alone'
local new = head(key, value)
local month, day = string.sub(new.day, 1, 7), redis.call('HGET', m, 'day') or ''
local function answer(outcome, found_key, found)
  return {{'ok', seq, outcome, found_key, found, pages_of(new.caller, new.day, month), day}}
end
local found = redis.call('HGET', c, key)
if found then return answer('known', key, found) end
local other = (alone or (since and new.render ~= '')) and redis.call('HGET', m, 'p:' .. new.place)
found = other and redis.call('HGET', c, other)
if found then
  local old = head(other, found)
  if not old then return {{'unreadable', other}} end
  if since and old.render == new.render and new.render ~= '' and old.caller == new.caller
      and old.first_start >= since and (old.state == '{State.ACCEPTED}' or old.state == '{State.CHARGED}') then
    return answer('duplicate', other, found)
  end
  if alone and old.open_at then return answer('occupied', other, found) end
end
if new.day ~= '' then
  if day ~= '' and day ~= new.day then return answer('period', '', '') end
  local of_day, of_month = room(new.caller, new.day, month, tonumber(ARGV[6]), tonumber(ARGV[7]))
  if new.held > of_month then return answer('month', '', '') end
  if new.held > of_day then return answer('day', '', '') end
  if day == '' then day = new.day end
end
count_pages(nil, new)
redis.call('HSET', c, key, value)
redis.call('HSET', m, 'day', day)
write_counters()
write_indexes(key, nil, new, look_at, true)
changed()
return answer('new', '', '')
"""
)
# Changes see those before them. `-` as the state: there is no record; an empty value deletes it.
CHANGE = (
    CHECK
    + PAGES
    + RECORDS
    + """
local heads, values, made, answer = {}, {}, {}, {}
for i = 3, #ARGV, 6 do
  local key, state, nonce, value, look_at, score = unpack(ARGV, i, i + 5)
  if heads[key] == nil then
    local found = redis.call('HGET', c, key)
    heads[key] = found and head(key, found)
    if heads[key] == nil then return {'unreadable', key} end
  end
  local old, new = heads[key], value ~= '' and head(key, value)
  local holds = (state == '-' and not old and new) or (old and old.state == state and old.nonce == nonce)
  table.insert(answer, holds and 1 or 0)
  if holds then
    count_pages(old, new)
    heads[key], values[key] = new, value
    table.insert(made, {key, old, new, look_at, new and new.open_at, score})
  end
end
if #made == 0 then return {'ok', seq, answer} end
local gone = {}
for key, value in pairs(values) do
  if value == '' then table.insert(gone, key) else redis.call('HSET', c, key, value) end
end
if #gone > 0 then redis.call('HDEL', c, unpack(gone)) end
write_counters()
for _, each in ipairs(made) do write_indexes(unpack(each, 1, 6)) end
changed()
return {'ok', seq, answer}
"""
)
FIND = (
    CHECK
    + """
local found = {}
for i = 3, #ARGV do found[i - 2] = redis.call('HGET', c, ARGV[i]) end
return {'ok', seq, found}
"""
)
DUE = (
    CHECK
    + POSTPONING
    + """
local found = {}
for _, key in ipairs(redis.call('ZRANGEBYSCORE', d, '-inf', ARGV[3], 'LIMIT', 0, ARGV[5])) do
  local value = redis.call('HGET', c, key)
  if value then
    postpone(key, ARGV[4])
    table.insert(found, key)
    table.insert(found, value)
  end
end
if #found > 0 then changed() end
return {'ok', seq, found}
"""
)
POSTPONE = (
    CHECK
    + POSTPONING
    + """
for i = 4, #ARGV do postpone(ARGV[i], ARGV[3]) end
if #ARGV > 3 then changed() end
return {'ok', seq}
"""
)
OPEN_AT = (
    CHECK
    + """
local count = math.min(count_of(redis.call('HGET', m, 'n:' .. ARGV[3])) or 0, tonumber(ARGV[4]))
local fields = {}
for i = 1, count do fields[i] = 'o:' .. ARGV[3] .. '\\t' .. i end
return {'ok', seq, count > 0 and redis.call('HMGET', m, unpack(fields)) or {}}
"""
)
BOUND = (
    CHECK
    + """
local found = {}
for i = 4, #ARGV do found[i - 3] = redis.call('HEXISTS', m, 'j:' .. ARGV[3] .. '\\t' .. ARGV[i]) end
return {'ok', seq, found}
"""
)
ACCEPTED = (
    CHECK
    + """
local prefix, most, found, at = 'a:' .. ARGV[3] .. '\\t', 2 * tonumber(ARGV[6]), {}, 0
repeat
  local some = redis.call('ZRANGEBYSCORE', d, ARGV[4], ARGV[5], 'WITHSCORES', 'LIMIT', at, 1000)
  for i = 1, #some, 2 do
    if #found < most and string.sub(some[i], 1, #prefix) == prefix then
      table.insert(found, string.sub(some[i], #prefix + 1))
      table.insert(found, some[i + 1])
    end
  end
  at = at + 1000
until #some < 2000 or #found >= most
return {'ok', seq, found}
"""
)
COUNT = CHECK + PAGES + "return {'ok', seq, pages_of(ARGV[3], ARGV[4], ARGV[5])}"
# Counters of periods before ARGV[5] go, unless pages are still held in them: their records will end.
ADVANCE = (
    CHECK
    + """
local day, new = redis.call('HGET', m, 'day') or '', ARGV[4]
if day ~= ARGV[3] or new <= day then return {'ok', seq, day} end
redis.call('HSET', m, 'day', new)
local cursor = '0'
repeat
  local answer = redis.call('HSCAN', p, cursor, 'MATCH', 'held:*', 'COUNT', 1000)
  cursor = answer[1]
  for i = 1, #answer[2], 2 do
    local rest = string.sub(answer[2][i], 6)
    local period = string.match(rest, '^[^\\t]*')
    if answer[2][i + 1] == '0' and period < string.sub(ARGV[5], 1, #period) then
      redis.call('HDEL', p, 'held:' .. rest, 'used:' .. rest)
    end
  end
until cursor == '0'
changed()
return {'ok', seq, new}
"""
)
LEASE = (
    CHECK
    + PAGES
    + LEASING
    + """
local name, caller, day, pages = ARGV[3] .. '\\t' .. ARGV[4] .. '\\t' .. ARGV[5], ARGV[4], ARGV[5], tonumber(ARGV[6])
local before = leased(name)
local of_day, of_month = room(caller, day, string.sub(day, 1, 7), tonumber(ARGV[8]), tonumber(ARGV[9]))
pages = math.max(0, math.min(pages, of_day + before, of_month + before))
add(caller, day, pages - before, 0)
write_counters()
write_lease(name, pages, ARGV[7])
changed()
return {'ok', seq, pages}
"""
)
LEASES = (
    CHECK
    + """
local found, cursor = {}, '0'
repeat
  local answer = redis.call('HSCAN', p, cursor, 'MATCH', 'lease:*', 'COUNT', 1000)
  cursor = answer[1]
  for _, each in ipairs(answer[2]) do table.insert(found, each) end
until cursor == '0'
return {'ok', seq, found}
"""
)
HAND_OVER = (
    CHECK
    + PAGES
    + RECORDS
    + LEASING
    + """
local name, caller, day = ARGV[3] .. '\\t' .. ARGV[4] .. '\\t' .. ARGV[5], ARGV[4], ARGV[5]
local before, value = leased(name)
local spent, new, seen = 0, {}, {}
for i = 6, #ARGV, 4 do
  local key = ARGV[i]
  local found = redis.call('HGET', c, key)
  if found and not head(key, found) then return {'unreadable', key} end
  if not seen[key] and not found then
    local record = head(key, ARGV[i + 1])
    spent = spent + record.held + record.used
    count_pages(nil, record)
    seen[key] = true
    table.insert(new, {key, record, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]})
  end
end
if #new == 0 then return {'ok', seq} end
local left = math.max(0, before - spent)
add(caller, day, left - before, 0)
for _, each in ipairs(new) do redis.call('HSET', c, each[1], each[3]) end
write_counters()
for _, each in ipairs(new) do
  local key, record = each[1], each[2]
  local other = redis.call('HGET', m, 'p:' .. record.place)
  local there = other and head(other, redis.call('HGET', c, other) or '')
  write_indexes(key, nil, record, each[4], not there or there.first_start < record.first_start, each[5])
end
if value then write_lease(name, left, string.match(value, ' (.*)$')) end
changed()
return {'ok', seq}
"""
)
# Parts of what an earlier version has left; the last one has `end` and the used pages after its records.
TAKE_OVER = (
    CHECK
    + PAGES
    + RECORDS
    + """
local source, last, new = 'import:' .. ARGV[3], 4 + 4 * tonumber(ARGV[4]), {}
if redis.call('HEXISTS', m, source) == 1 then return {'ok', seq, 0} end
for i = 5, last, 4 do
  if redis.call('HEXISTS', c, ARGV[i]) == 0 then
    local record = head(ARGV[i], ARGV[i + 1])
    count_pages(nil, record)
    table.insert(new, {ARGV[i], record, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]})
  end
end
for i = last + 2, #ARGV, 3 do
  local name = ARGV[i + 1] .. '\\t' .. ARGV[i]
  counters['used:' .. name] = counter('used:' .. name) + tonumber(ARGV[i + 2])
  counter('held:' .. name)
end
for _, each in ipairs(new) do redis.call('HSET', c, each[1], each[3]) end
write_counters()
for _, each in ipairs(new) do write_indexes(each[1], nil, each[2], each[4], false, each[5]) end
if ARGV[last + 1] == 'end' then redis.call('HSET', m, source, 1) end
changed()
return {'ok', seq, 1}
"""
)
MARK = (
    CHECK
    + """
local before = redis.call('HGET', m, 'cloud_mark')
local is_later = tonumber(ARGV[3]) > (tonumber(before or 0) or 0)
local mark = is_later and ARGV[3] or before
if is_later then redis.call('HSET', m, 'cloud_mark', mark) end
if mark and not string.find(' ' .. secrets .. ' ', ' ' .. own_secret .. ' ' .. mark .. ' ', 1, true) then
  note_secret(mark)
  is_later = true
end
if is_later then changed() end
return {'ok', seq}
"""
)
# An operator takes the records of these secrets as lost.
DROP_SECRETS = (
    CHECK
    + """
local left = {}
for id, at in string.gmatch(secrets, '(%S+) (%S+)') do
  if not string.find(ARGV[3], ',' .. id .. ',', 1, true) then table.insert(left, id .. ' ' .. at) end
end
redis.call('HSET', m, 'secrets', table.concat(left, ' '))
return {'ok', seq}
"""
)
