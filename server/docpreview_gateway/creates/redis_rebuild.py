"""Lua scripts that begin and end the rebuild of a store of creates that has lost something (`redis_scripts`)."""

from __future__ import annotations

from docpreview_gateway.creates.ports import MAKING
from docpreview_gateway.creates.redis_lua import CHECK, PAGES, RECORDS, STATE_FIELDS, STORE

# Of a store that is not whole, used pages, leases and times that are still there are kept; all else is computed again
# from the records, of which it reads each. Used pages are kept aside (`kept:`) until the rebuild ends: it takes up
# creates whose pages are among them.
BEGIN_REBUILD = (
    STORE
    + PAGES
    + RECORDS
    + f"""
seq = seq or 0
local new = ARGV[3]
local function answer()
  local f = {STATE_FIELDS}
  return {{'ok', seq, {{redis.call('HGET', m, 'generation'), seq, f[1] or '', f[2] or '', f[3] or '', secrets,
    server_id()}}}}
end
if is_whole then
  local is_noted = (tonumber(redis.call('HGET', m, 'lost_since') or 0) or 0) ~= 0
  if not is_noted and tonumber(ARGV[4]) ~= {MAKING} then
    redis.call('HSET', m, 'lost_since', ARGV[4])
    changed()
  elseif server_id() ~= changed_on() then
    changed()
  end
  return answer()
end
local heads, scores, places, kept, leases, cursor = {{}}, {{}}, {{}}, {{}}, {{}}, '0'
repeat
  local batch = redis.call('HSCAN', c, cursor, 'COUNT', 500)
  cursor = batch[1]
  for i = 1, #batch[2], 2 do heads[batch[2][i]] = head(batch[2][i], batch[2][i + 1]) end
until cursor == '0'
local due = redis.call('ZRANGE', d, 0, -1, 'WITHSCORES')
for i = 1, #due, 2 do scores[due[i]] = due[i + 1] end
local pages = redis.call('HGETALL', p)
for i = 1, #pages, 2 do
  local field, value = pages[i], pages[i + 1]
  local kind = string.match(field, '^%a+:')
  if kind == 'lease:' then table.insert(leases, {{field, value}}) end
  if kind == 'used:' or kind == 'kept:' then
    local name = 'kept:' .. string.sub(field, 6)
    kept[name] = math.max(kept[name] or 0, count_of(value) or 0)
  end
  if kind == 'used:' or kind == 'held:' then counters[field] = 0 end
end
for _, each in ipairs(leases) do
  local caller, day = string.match(each[1], '^lease:[^\\t]*\\t([^\\t]*)\\t([^\\t]*)$')
  if caller then add(caller, day, count_of(string.match(each[2], '^%d+')) or 0, 0) end
end
for key, record in pairs(heads) do
  count_pages(nil, record)
  local other = heads[places[record.place]]
  if not other or other.first_start < record.first_start then places[record.place] = key end
end
local day = redis.call('HGET', m, 'day') or ''
redis.call('HSET', c, 'generation', new)
redis.call('DEL', d, m)
redis.call('ZADD', d, '+inf', 'generation:' .. new)
redis.call('HSET', m, 'generation', new, 'cloud_mark', '0', 'lost_since', ARGV[4], 'day', day,
  'secrets', secrets)
redis.call('HSET', p, 'generation', new)
write_counters()
for field, pages in pairs(kept) do redis.call('HSET', p, field, string.format('%.0f', pages)) end
for key, record in pairs(heads) do
  write_indexes(key, nil, record, scores[key] or 0, false, record.job and scores['a:' .. record.job])
end
for place, key in pairs(places) do redis.call('HSET', m, 'p:' .. place, key) end
changed()
return answer()
"""
)
END_REBUILD = (
    CHECK
    + PAGES
    + """
local lost_since = tonumber(redis.call('HGET', m, 'lost_since') or 0) or 0
if lost_since == 0 or lost_since ~= tonumber(ARGV[3]) then return {'ok', seq, 0} end
local mark = ARGV[4]
local before = redis.call('HGET', m, 'cloud_mark')
if before and (tonumber(before) or 0) > tonumber(mark) then mark = before end
for i = 5, #ARGV, 3 do
  local name = ARGV[i + 1] .. '\\t' .. ARGV[i]
  counters['used:' .. name] = math.max(counter('used:' .. name), tonumber(ARGV[i + 2]))
  counter('held:' .. name)
end
local kept, cursor = {}, '0'
repeat
  local batch = redis.call('HSCAN', p, cursor, 'MATCH', 'kept:*', 'COUNT', 1000)
  cursor = batch[1]
  for i = 1, #batch[2], 2 do
    local name = string.sub(batch[2][i], 6)
    table.insert(kept, batch[2][i])
    counters['used:' .. name] = math.max(counter('used:' .. name), count_of(batch[2][i + 1]) or 0)
    counter('held:' .. name)
  end
until cursor == '0'
redis.call('HSET', m, 'lost_since', '0', 'cloud_mark', mark)
write_counters()
for _, field in ipairs(kept) do redis.call('HDEL', p, field) end
changed()
return {'ok', seq, 1}
"""
)
