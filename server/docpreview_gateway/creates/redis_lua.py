"""Lua that the scripts of the store of creates share (`redis_scripts`): its checks, counters, records and indexes."""

from __future__ import annotations

from docpreview_gateway.creates.records import Index, State

_FIELDS = len(Index._fields)

STORE = """
local c, p, d, m = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
-- The gateway finds the text between the braces (`redis_answers.Damaged`), whatever the server puts around it.
local function fail(key, field, what)
  error('DAMAGED{' .. key .. ': the field ' .. field .. ' is not ' .. what .. '}')
end
-- A number that counts something; nil for any other text, `nan` and `inf` too.
local function count_of(value)
  local number = tonumber(value)
  if number and number == math.floor(number) and number >= 0 and number < 2^53 then return number end
end
local seq = count_of(redis.call('HGET', m, 'seq') or 0)
local generation = redis.call('HGET', m, 'generation')
local member = 'generation:' .. (generation or '')
local is_whole = generation and generation ~= '' and redis.call('HGET', c, 'generation') == generation
  and redis.call('HGET', p, 'generation') == generation and redis.call('ZSCORE', d, member) and true or false
local least_seq, known_loss, own_secret, known_secrets, known_server =
  string.match(ARGV[2], '^(%S+) (%S+) (%S+) (%S+) (%S+)$')
-- Another one after a restart or a failover (`RedisHealth.server`); nothing where the user may not ask.
local this_server
local function server_id()
  if this_server then return this_server end
  local server, replication = redis.pcall('INFO', 'server'), redis.pcall('INFO', 'replication')
  if type(server) ~= 'string' or type(replication) ~= 'string' then return '' end
  local run, id = string.match(server, 'run_id:(%w+)'), string.match(replication, 'master_replid:(%w+)')
  this_server = run and id and run .. ':' .. id or ''
  return this_server
end
-- The one that the last change was made on.
local function changed_on()
  local id = redis.call('HGET', m, 'server')
  return id and id ~= '' and id or server_id()
end
local secrets = redis.call('HGET', m, 'secrets') or ''
local function note_secret(used_at)
  local others = {}
  for id, at in string.gmatch(secrets, '(%S+) (%S+)') do
    if id ~= own_secret then table.insert(others, id .. ' ' .. at) end
  end
  table.insert(others, own_secret .. ' ' .. used_at)
  secrets = table.concat(others, ' ')
  redis.call('HSET', m, 'secrets', secrets)
end
local function changed()
  seq = seq + 1
  redis.call('HSET', m, 'seq', string.format('%.0f', seq), 'server', server_id())
  for id in string.gmatch(secrets, '(%S+) %S+') do if id == own_secret then return end end
  note_secret(redis.call('HGET', m, 'cloud_mark') or '0')
end
"""
CHECK = (
    STORE
    + """
if not is_whole or not seq or (ARGV[1] ~= '*' and ARGV[1] ~= generation) or seq < tonumber(least_seq) then
  return {'lost'}
end
-- A loss that another replica has noted, of changes that this one may not have seen.
local loss = tonumber(redis.call('HGET', m, 'lost_since') or 0)
if not loss or (loss ~= 0 and known_loss ~= '*' and loss ~= tonumber(known_loss)) then return {'lost'} end
if known_server ~= '*' then
  local server = server_id()
  if server ~= '' and server ~= known_server then return {'moved', server} end
end
for id in string.gmatch(secrets, '(%S+) %S+') do
  if known_secrets ~= '*' and not string.find(known_secrets, ',' .. id .. ',', 1, true) then return {'secret', id} end
end
"""
)
PAGES = """
-- Counters that change, by field; they are written together.
local counters = {}
local function counter(field)
  if not counters[field] then
    counters[field] = count_of(redis.call('HGET', p, field) or 0) or fail(p, field, 'a number of pages')
  end
  return counters[field]
end
local function add(caller, day, held, used)
  if day == '' then return end
  for _, period in ipairs({day, string.sub(day, 1, 7)}) do
    for name, pages in pairs({held = held, used = used}) do
      local field = name .. ':' .. period .. '\\t' .. caller
      local sum = counter(field) + pages
      -- Never below 0: counters that are too high refuse creates, too low ones overspend.
      counters[field] = sum > 0 and sum or 0
    end
  end
end
local function write_counters()
  for field, pages in pairs(counters) do redis.call('HSET', p, field, string.format('%.0f', pages)) end
end
local function pages_of(caller, day, month)
  local found = {}
  for _, period in ipairs({day, month}) do
    for _, name in ipairs({'used', 'held'}) do
      table.insert(found, period == '' and 0 or counter(name .. ':' .. period .. '\\t' .. caller))
    end
  end
  return found
end
local function room(caller, day, month, per_day, per_month)
  local found = pages_of(caller, day, month)
  return per_day >= 0 and per_day - found[1] - found[2] or math.huge,
    per_month >= 0 and per_month - found[3] - found[4] or math.huge
end
"""
RECORDS = f"""
-- The header of a stored record; nil when it is damaged. Only the gateway can tell whether it is authentic.
local function head(key, value)
  local stop = string.find(value, '\\n', 42, true)
  local sum = redis.sha1hex(key .. string.sub(value, 41))
  if not stop or sum ~= string.sub(value, 1, 40) then return nil end
  local f = {{}}
  for field in string.gmatch(string.sub(value, 42, stop - 1) .. '\\t', '([^\\t]*)\\t') do table.insert(f, field) end
  local held, used, first_start = tonumber(f[5]), tonumber(f[6]), tonumber(f[11])
  if #f ~= {_FIELDS} or not held or not used or not first_start then return nil end
  return {{state = f[1], nonce = f[2], caller = f[3], day = f[4], held = held, used = used, place = f[7], render = f[8],
    job = f[10] ~= '' and f[9] .. '\\t' .. f[10], first_start = first_start, open_at = f[1] == '{State.OPEN}' and f[7]}}
end
-- No command from here on may fail, whatever the indexes hold: the first write is done.
local function number_of(field) return tonumber(redis.call('HGET', m, field) or 0) or 0 end
local function index_open(key, place)
  local number = number_of('n:' .. place) + 1
  redis.call('HSET', m, 'n:' .. place, number, 'o:' .. place .. '\\t' .. number, key, 'i:' .. key, number)
end
local function unindex_open(key, place)
  local number, count = number_of('i:' .. key), number_of('n:' .. place)
  if number == 0 then return end
  local last = 'o:' .. place .. '\\t' .. count
  local moved = redis.call('HGET', m, last)
  -- The last one takes the number of the one that goes.
  if moved and moved ~= key then
    redis.call('HSET', m, 'o:' .. place .. '\\t' .. number, moved, 'i:' .. moved, number)
  end
  redis.call('HDEL', m, last, 'i:' .. key)
  if count > 1 then redis.call('HSET', m, 'n:' .. place, count - 1) else redis.call('HDEL', m, 'n:' .. place) end
end
local function index_job(job, by, score)
  if not job then return end
  local number = number_of('j:' .. job) + by
  if number > 0 then redis.call('HSET', m, 'j:' .. job, number) else redis.call('HDEL', m, 'j:' .. job) end
  if number <= 0 then redis.call('ZREM', d, 'a:' .. job) end
  if score and score ~= '' then redis.call('ZADD', d, score, 'a:' .. job) end
end
-- Pages of a record in place of another; used ones stay counted when a create is forgotten.
local function count_pages(old, new)
  if old then add(old.caller, old.day, -old.held, new and -old.used or 0) end
  if new then add(new.caller, new.day, new.held, new.used) end
end
-- The indexes of a record in place of another, after all checks. `score` is its job's.
local function write_indexes(key, old, new, look_at, takes_place, score)
  if new then redis.call('ZADD', d, look_at, key) else redis.call('ZREM', d, key) end
  local was_open, is_open = old and old.open_at, new and new.open_at
  if was_open ~= is_open then
    if was_open then unindex_open(key, was_open) end
    if is_open then index_open(key, is_open) end
  end
  if takes_place then
    redis.call('HSET', m, 'p:' .. new.place, key)
  elseif not new and redis.call('HGET', m, 'p:' .. old.place) == key then
    redis.call('HDEL', m, 'p:' .. old.place)
  end
  if (old and old.job) ~= (new and new.job) then
    if new then index_job(new.job, 1, score) end
    if old then index_job(old.job, -1) end
  end
end
"""
# Removed and added again, because a full server refuses to change a score, although that takes no memory. Nothing that
# is stored may keep the loop from ending creates, which makes room.
POSTPONING = """
local function postpone(key, look_at)
  if redis.call('ZREM', d, key) == 1 then redis.call('ZADD', d, look_at, key) end
end
"""
LEASING = """
local function leased(name)
  local value = redis.call('HGET', p, 'lease:' .. name)
  if not value then return 0 end
  return count_of(string.match(value, '^%d+')) or fail(p, 'lease:' .. name, 'a lease'), value
end
local function write_lease(name, pages, renewed_at)
  if pages > 0 then redis.call('HSET', p, 'lease:' .. name, string.format('%.0f %s', pages, renewed_at))
  else redis.call('HDEL', p, 'lease:' .. name) end
end
"""
STATE_FIELDS = "redis.call('HMGET', m, 'cloud_mark', 'lost_since', 'day')"
