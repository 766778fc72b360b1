"""The scripts of the Redis store for runs that come and go, and for records that are put in place of others.

What all scripts share, and the keys, are in `prelude`.
"""

from __future__ import annotations

from .prelude import Script

__all__ = ["ARRIVALS", "ARRIVE", "ARRIVING", "DEPART", "LAND", "REWRITE", "STAGE", "STAGED", "TURN_AWAY"]

# the arrival that is there or '', the one that is to be, its token, incarnation, created, birth of its logs if new
ARRIVE = Script(
    "arrive",
    """
if load(ARGV[2]) then return {'here'} end
local key = base .. 'move:' .. enc(ARGV[2])
local there = redis.call('HMGET', key, 'a', 'l')
if (there[1] or '') ~= ARGV[3] then return {'other', there[1] or ''} end
if there[1] ~= ARGV[4] then
  op('HSET', key, 'a', ARGV[4], 't', ARGV[5], 'i', ARGV[6], 'l', there[2] or ARGV[8])
  op('ZADD', base .. 'arriving', 0, ARGV[2])
  if redis.call('HEXISTS', base .. 'gone', ARGV[2]) == 0 then
    op('HSET', base .. 'gone', ARGV[2], '0 ' .. ARGV[7] .. ' -')
  end
  if not format then op('HSET', KEYS[1], 'format', '1') end
  commit()
end
return {'done'}
""",
)

# the arrival, the birth of its logs, and how many records each of its incarnations has
ARRIVING = Script(
    "arriving",
    """
local name = enc(ARGV[2])
local there = redis.call('HMGET', base .. 'move:' .. name, 'a', 'l', 'i')
if not there[1] then return {'none'} end
local counts = {}
for number = 0, tonumber(there[3]) do counts[#counts + 1] = redis.call('LLEN', log_of(there[2], int(number), name)) end
return {'done', there[1], there[2], counts}
""",
)

# run id after which it begins or '', how many
ARRIVALS = Script(
    "arrivals",
    """
local first, found = ARGV[2] == '' and '-' or '(' .. ARGV[2], {}
for _, id in ipairs(redis.call('ZRANGEBYLEX', base .. 'arriving', first, '+', 'LIMIT', 0, tonumber(ARGV[3]))) do
  local arrival = redis.call('HGET', base .. 'move:' .. enc(id), 'a')
  if arrival then found[#found + 1] = arrival end
end
return {'done', found}
""",
)

# token, incarnation, seq, how many attempts, attempts each with its seq, records
STAGE = Script(
    "stage",
    """
local name = enc(ARGV[2])
local there = redis.call('HMGET', base .. 'move:' .. name, 't', 'l')
if not there[1] or there[1] ~= ARGV[3] then return {'none'} end
local number, seq = tonumber(ARGV[4]), tonumber(ARGV[5])
local log, future = log_of(there[2], ARGV[4], name), base .. 'in:' .. name
local size = redis.call('LLEN', log)
local before = number == 0 or redis.call('EXISTS', log_of(there[2], int(number - 1), name)) == 1
if not before or seq > size then return {'gap'} end
local first = 7 + 2 * tonumber(ARGV[6])
local over = math.min(size - seq, #ARGV - first + 1)
push(log, first + over)
if over > 0 then
  for j, old in ipairs(redis.call('LRANGE', log, seq, seq + over - 1)) do
    local new = ARGV[first + j - 1]
    if old ~= new then
      op('LSET', log, seq + j - 1, new)
      local attempt = string.match(string.sub(old, 1, 400), '"attemptId":"([^"]*)"')
      if attempt then op('HDEL', future, 'a:' .. attempt) end
    end
  end
end
for at = 7, first - 2, 2 do op('HSET', future, 'a:' .. ARGV[at], ARGV[4] .. ' ' .. ARGV[at + 1]) end
commit()
return {'done'}
""",
)

# incarnation, seq, how many
STAGED = Script(
    "staged",
    """
local name = enc(ARGV[2])
local birth = redis.call('HGET', base .. 'move:' .. name, 'l')
if not birth then return {'done', {}} end
local from = tonumber(ARGV[4])
return {'done', redis.call('LRANGE', log_of(birth, ARGV[3], name), from, from + tonumber(ARGV[5]) - 1)}
""",
)

# the arrival as it was seen, birth of its logs, mark of this request, fence, closed, JSON list of counts, head (8)
LAND = Script(
    "land",
    """
local name = enc(ARGV[2])
local key, move, future = base .. 'run:' .. name, base .. 'move:' .. name, base .. 'in:' .. name
local there = redis.call('HMGET', move, 'a', 'l')
if not there[1] then return {redis.call('HGET', key, 'm') == ARGV[5] and 'done' or 'none'} end
if there[1] ~= ARGV[3] or there[2] ~= ARGV[4] then return {'other'} end
local gone = redis.call('HGET', base .. 'gone', ARGV[2])
local last = gone and tonumber(string.match(gone, '^%d+')) or 0
local counts = cjson.decode(ARGV[8])
local number = #counts - 1
local run = {id = ARGV[2], name = name, key = key, was = {}, i = int(number), b = ARGV[4], c = ARGV[7]}
run.f = int(math.max(tonumber(ARGV[6]), last + 1))
run.seq, run.log = counts[#counts], log_of(run.b, run.i, name)
run.n = int(run.seq)
free(run)
head(run, 9)
stage(run, {})
op('HSET', key, 'm', ARGV[5])
local attempts = redis.call('HGETALL', future)
for j = 1, #attempts, 2 do
  local at, seq = string.match(attempts[j + 1], '^(%d+) (%d+)$')
  if (counts[tonumber(at) + 1] or 0) > tonumber(seq) then op('HSET', key, attempts[j], attempts[j + 1]) end
end
for at, count in ipairs(counts) do
  local log = log_of(run.b, int(at - 1), name)
  if redis.call('LLEN', log) > count then op('LTRIM', log, 0, count - 1) end
end
while redis.call('EXISTS', log_of(run.b, int(number + 1), name)) == 1 do
  number = number + 1
  op('UNLINK', log_of(run.b, int(number), name))
end
op('UNLINK', move, future)
op('ZREM', base .. 'arriving', run.id)
if last == 0 then op('HDEL', base .. 'gone', run.id) end
op('PUBLISH', base .. 'told:' .. name, '')
commit()
return {'done'}
""",
)

# the arrival as it was seen, birth of its logs
TURN_AWAY = Script(
    "turn_away",
    """
local name = enc(ARGV[2])
local key = base .. 'move:' .. name
local there = redis.call('HMGET', key, 'a', 'l')
if (there[1] or '') ~= ARGV[3] or there[2] ~= ARGV[4] then return {'other'} end
op('HDEL', key, 'a', 't', 'i', 'l')
op('UNLINK', base .. 'in:' .. name)
op('ZREM', base .. 'arriving', ARGV[2])
local gone = redis.call('HGET', base .. 'gone', ARGV[2])
if gone and string.match(gone, '^%d+') == '0' then op('HDEL', base .. 'gone', ARGV[2]) end
local number, left = 0, there[2] .. ':' .. name
while redis.call('EXISTS', log_of(there[2], int(number), name)) == 1 do number = number + 1 end
if number > 0 then op('HSET', base .. 'trash', left, int(number - 1)) end
commit()
return {'done', left}
""",
)

# the mark that it leaves, incarnation, seq, fence, closed, due or ''
DEPART = Script(
    "depart",
    """
local run = load(ARGV[2])
if not run then
  return {redis.call('HGET', base .. 'move:' .. enc(ARGV[2]), 'd') == ARGV[3] and 'again' or 'kept'}
end
local as_seen = run.i == ARGV[4] and int(run.seq) == ARGV[5] and tonumber(run.n) <= run.seq and run.f == ARGV[6]
if not as_seen or run.c ~= ARGV[7] or run.d ~= ARGV[8] then return {'kept'} end
op('UNLINK', run.key)
for key in pairs(places(run)) do leave(run, key) end
op('HSET', base .. 'move:' .. run.name, 'd', ARGV[3])
op('HSET', base .. 'gone', run.id, run.f .. ' ' .. run.r .. ' -')
op('HSET', base .. 'trash', run.b .. ':' .. run.name, run.i)
op('PUBLISH', base .. 'told:' .. run.name, '')
commit()
return {'done', run.b .. ':' .. run.name}
""",
)

# incarnation, seq, how many records, the head that is there and its due or twice '', head (8, if one is to be changed),
# the records that are there, those that take their place
REWRITE = Script(
    "rewrite",
    """
local run = load(ARGV[2])
if not run then return {'kept'} end
local number, seq, count, first = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), 8
if number < 0 or number > tonumber(run.i) or seq < 0 then return {'kept'} end
if ARGV[6] ~= '' then
  if run.h ~= ARGV[6] or run.d ~= ARGV[7] then return {'kept'} end
  first = 16
end
local log = log_of(run.b, ARGV[3], run.name)
local there = count > 0 and redis.call('LRANGE', log, seq, seq + count - 1) or {}
if #there ~= count then return {'kept'} end
for j, line in ipairs(there) do
  if line ~= ARGV[first + j - 1] then return {'kept'} end
  op('LSET', log, seq + j - 1, ARGV[first + count + j - 1])
end
if first == 16 then
  local before = places(run)
  head(run, 8)
  stage(run, before)
end
commit()
return {'done'}
""",
)
