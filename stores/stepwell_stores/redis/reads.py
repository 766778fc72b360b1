"""The scripts of the Redis store that change nothing; what they share, and the keys, are in `prelude`."""

from __future__ import annotations

from .prelude import Script

__all__ = ["CLOSED", "COUNTS", "HEAD", "HEADS", "LOGS", "LOOK", "NAMES", "NEXT_DUE", "READ", "SIZES", "STRAYS", "TAIL"]

HEAD = Script("head", "local run = load(ARGV[2])\nif not run then return none(ARGV[2]) end\nreturn {'done', row(run)}")

# from, incarnation or '', how many at most, bytes at most, how they are given, birth that was seen or ''
READ = Script(
    "read",
    """
local run = load(ARGV[2])
if not run then return none(ARGV[2]) end
if ARGV[8] ~= '' and ARGV[8] ~= run.b then return {'changed'} end
local number = ARGV[4] == '' and run.i or ARGV[4]
if tonumber(number) < 0 or tonumber(number) > tonumber(run.i) then return {'none'} end
local log, finish, least = run.log, run.seq, run.n
if number ~= run.i then
  log = log_of(run.b, number, run.name)
  finish, least = redis.call('LLEN', log), '1'
end
local start = math.min(math.max(tonumber(ARGV[3]), 0), finish)
local stop, at, size, lines = math.min(finish, start + tonumber(ARGV[5])), start, 0, {}
while at < stop and size < tonumber(ARGV[6]) do
  local step = size == 0 and 16 or math.max(1, math.floor((tonumber(ARGV[6]) - size) * (at - start) / size))
  for _, line in ipairs(redis.call('LRANGE', log, at, math.min(stop, at + step) - 1)) do
    lines[#lines + 1] = line
    size = size + #line
    at = at + 1
  end
end
local closed = (number ~= run.i or run.c == '1') and '1' or '0'
local answer = {'done', number, start, finish, closed, least, run.b, log, #lines}
answer[#answer + 1] = ARGV[7] == 'joined' and table.concat(lines, '\\n') or lines
return answer
""",
)

# indexes that the runs have to be in (JSON), those that they may not be in (JSON), whether under a live lease ('yes',
# 'no' or ''), the run after which it begins or '', its created if it is known, how many to look at, how many to give
HEADS = Script(
    "heads",
    """
local wanted, unwanted, least = cjson.decode(ARGV[2]), cjson.decode(ARGV[3]), nil
for _, name in ipairs(wanted) do
  local key = base .. 'ix:' .. name
  local size = redis.call('ZCARD', key)
  if not least or size < least[2] then least = {key, size} end
end
local stop = least[2]
if ARGV[5] ~= '' then
  local created = ARGV[6] ~= '' and ARGV[6] or redis.call('HGET', base .. 'run:' .. enc(ARGV[5]), 'r')
  if not created then
    local gone = redis.call('HGET', base .. 'gone', ARGV[5])
    if not gone then return {'nobody'} end
    created = string.match(gone, '^%d+ (%S+)')
  end
  stop = rank(least[1], created, ARGV[5])
end
local start = math.max(0, stop - tonumber(ARGV[7]))
local ids = start < stop and redis.call('ZRANGE', least[1], start, stop - 1, 'WITHSCORES') or {}
local rows, last, created, more = {}, '', '', start > 0
for j = #ids - 1, 1, -2 do
  local id, fits = ids[j], true
  for _, name in ipairs(wanted) do
    local key = base .. 'ix:' .. name
    if fits and key ~= least[1] and not redis.call('ZSCORE', key, id) then fits = false end
  end
  for _, name in ipairs(unwanted) do
    if fits and redis.call('ZSCORE', base .. 'ix:' .. name, id) then fits = false end
  end
  if fits and ARGV[4] ~= '' then
    local ends = redis.call('HGET', base .. 'run:' .. enc(id), 'u')
    fits = (ends and ends ~= '' and tonumber(ends) > now() and 'yes' or 'no') == ARGV[4]
  end
  local run = fits and load(id)
  if run then rows[#rows + 1] = row(run) end
  last, created = id, ids[j + 1]
  if #rows >= tonumber(ARGV[8]) then more = more or j > 1 break end
end
return {'done', more and last or '', created, rows}
""",
)

# after (workflow, updated, run id, or three times ''), before (3), newest first, how many
CLOSED = Script(
    "closed",
    """
local after, before, newest = {ARGV[2], ARGV[3], ARGV[4]}, {ARGV[5], ARGV[6], ARGV[7]}, ARGV[8] == '1'
local has_after, has_before = after[2] ~= '', before[2] ~= ''
local rows, limit = {}, tonumber(ARGV[9])
local low = has_after and '[' .. after[1] or '-'
local high = has_before and '[' .. before[1] or '+'
local command = newest and 'ZREVRANGEBYLEX' or 'ZRANGEBYLEX'
while #rows < limit do
  local first, last = low, high
  if newest then first, last = high, low end
  local workflow = redis.call(command, base .. 'fins', first, last, 'LIMIT', 0, 1)[1]
  if not workflow then break end
  local key = base .. 'fin:' .. enc(workflow)
  local start, stop = 0, redis.call('ZCARD', key)
  if has_after and workflow == after[1] then start = rank(key, after[2], after[3] .. '\\0') end
  if has_before and workflow == before[1] then stop = rank(key, before[2], before[3]) end
  local left = limit - #rows
  local ids = {}
  if start < stop then
    if newest then
      local some = redis.call('ZRANGE', key, math.max(start, stop - left), stop - 1)
      for j = #some, 1, -1 do ids[#ids + 1] = some[j] end
    else
      ids = redis.call('ZRANGE', key, start, math.min(stop, start + left) - 1)
    end
  end
  for _, id in ipairs(ids) do
    local run = find(id)
    if run and not run.damaged then
      local one = row(run)
      one[#one + 1], one[#one + 2] = run.w, run.p
      rows[#rows + 1] = one
    else
      rows[#rows + 1] = {id, workflow, redis.call('ZSCORE', key, id)}
    end
  end
  if newest then high = '(' .. workflow else low = '(' .. workflow end
end
return {'done', rows}
""",
)

NEXT_DUE = Script(
    "next_due",
    """
local soonest
local function take(text)
  if text and text ~= '' and (not soonest or tonumber(text) < tonumber(soonest)) then soonest = text end
end
local first = redis.call('ZRANGE', base .. 'due', 0, 0)[1]
if first then take(redis.call('HGET', base .. 'run:' .. enc(first), 'd')) end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', base .. 'until', '-inf', int(now()), 'LIMIT', 0, 100)) do
  local found = redis.call('HMGET', base .. 'run:' .. enc(id), 'u', 'd')
  take(found[1])
  take(found[2])
end
return {'done', soonest or ''}
""",
)

# how many runs there are by status, and the statuses of those under a live lease
COUNTS = Script(
    "counts",
    """
local counts, driven = {}, {}
for _, status in ipairs({'pending', 'suspended', 'paused', 'completed', 'failed', 'cancelled'}) do
  counts[#counts + 1] = status
  counts[#counts + 1] = redis.call('ZCARD', base .. 'ix:status:' .. status)
end
local sets = {'until'}
for _, kind in ipairs(redis.call('HKEYS', base .. 'kinds')) do sets[#sets + 1] = 'until:' .. kind end
for _, set in ipairs(sets) do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', base .. set, '(' .. int(now()), '+inf')) do
    local names = redis.call('HGET', base .. 'run:' .. enc(id), 'x') or ''
    driven[#driven + 1] = string.match('\\n' .. names, '\\nstatus:([a-z]+)') or 'pending'
  end
end
return {'done', counts, driven, redis.call('HKEYS', base .. 'trash')}
""",
)

# id and created after which it begins or '', how many: what these runs take, but for their earlier incarnations
SIZES = Script(
    "sizes",
    """
local key, start = base .. 'ix:all', 0
if ARGV[2] ~= '' then start = rank(key, ARGV[3], ARGV[2] .. '\\0') end
local ids = redis.call('ZRANGE', key, start, start + tonumber(ARGV[4]) - 1, 'WITHSCORES')
local events, bytes, earlier = 0, 0, {}
for j = 1, #ids, 2 do
  local run = find(ids[j])
  if run and not run.damaged then
    events = events + run.seq
    bytes = bytes + (redis.call('MEMORY', 'USAGE', run.key) or 0) + (redis.call('MEMORY', 'USAGE', run.log) or 0)
    if run.i ~= '0' then earlier[#earlier + 1] = {run.b, run.name, run.i} end
  end
end
return {'done', int(events), int(bytes), ids[#ids - 1] or '', ids[#ids] or '', earlier}
""",
)

# birth, name, first incarnation, last: what these take
LOGS = Script(
    "logs",
    """
local events, bytes = 0, 0
for number = tonumber(ARGV[4]), tonumber(ARGV[5]) do
  local log = log_of(ARGV[2], int(number), ARGV[3])
  events = events + redis.call('LLEN', log)
  bytes = bytes + (redis.call('MEMORY', 'USAGE', log) or 0)
end
return {'done', int(events), int(bytes)}
""",
)

TAIL = Script(
    "tail",
    """
local name = enc(ARGV[2])
local at = redis.call('HMGET', base .. 'run:' .. name, 'i', 'b')
if not at[1] or not at[2] then return {'none'} end
return {'done', redis.call('LLEN', log_of(at[2], at[1], name))}
""",
)

# a run's row with the names of its indexes, and those that it should be in and is not
LOOK = Script(
    "look",
    """
local run = load(ARGV[2])
if not run then return {'none', redis.call('ZSCORE', base .. 'ix:all', ARGV[2]) and '1' or '0'} end
local missing = {}
for key, score in pairs(places(run)) do
  local there = redis.call('ZSCORE', base .. key, run.id)
  if not there or tonumber(there) ~= tonumber(score) then missing[#missing + 1] = base .. key end
end
return {'done', row(run), run.x, run.r, run.p, run.w, run.k, run.b, missing}
""",
)

# id and created after which it begins or '', how many: run ids, each with its created
NAMES = Script(
    "names",
    """
local start, key = 0, base .. 'ix:all'
if ARGV[2] ~= '' then start = rank(key, ARGV[3], ARGV[2] .. '\\0') end
return {redis.call('ZCARD', key), redis.call('ZRANGE', key, start, start + tonumber(ARGV[4]) - 1, 'WITHSCORES')}
""",
)

# keys of rows and of records: those that belong to no run, and what is wrong with them
STRAYS = Script(
    "strays",
    """
local strays = {}
local function stray(key, what) strays[#strays + 1] = {key, what} end
local function plain(name)
  return (string.gsub(name, '%%(%x%x)', function(x) return string.char(tonumber(x, 16)) end))
end
for j = 2, #ARGV do
  local kind, rest = string.match(string.sub(ARGV[j], #base + 1), '^(%a+):(.*)$')
  if kind == 'run' and redis.call('EXISTS', ARGV[j]) == 1 then
    if not redis.call('ZSCORE', base .. 'ix:all', plain(rest)) then stray(ARGV[j], 'a run that no list has') end
  elseif kind == 'log' and redis.call('EXISTS', ARGV[j]) == 1 then
    local birth, number, name = string.match(rest, '^([^:]+):(%d+):(.*)$')
    local run = redis.call('HMGET', base .. 'run:' .. (name or ''), 'b', 'i')
    local owned = run[1] and run[1] == birth and tonumber(number) <= tonumber(run[2])
    local left = birth and redis.call('HGET', base .. 'trash', birth .. ':' .. name)
    if birth and redis.call('HGET', base .. 'move:' .. name, 'l') == birth then left = true end
    if not owned and not left then stray(ARGV[j], 'records that belong to no run') end
  end
end
return {'done', strays}
""",
)
