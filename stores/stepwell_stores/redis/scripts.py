"""The scripts of the Redis store that write; what they share, and the keys, are in `prelude`."""

from __future__ import annotations

from .prelude import Script

__all__ = ["APPEND", "CLAIM", "CLAIM_DUE", "CREATE", "DELETE", "OPEN", "RELEASE", "RENEW", "SWEEP", "TELL"]

# ARGV is now, run id, then what each says.

# mark, fence that was sealed, closed, lease (ttl, owner, token), head (8), records
CREATE = Script(
    "create",
    """
local run = load(ARGV[2])
if run then
  if not marked(log_of(run.b, 0, run.name), ARGV[3]) then return {'exists', row(run)} end
  local before = places(run)
  local lease = ask(run, ARGV[6], ARGV[7], ARGV[8])
  stage(run, before)
  commit()
  return {'made', lease}
end
local gone = redis.call('HGET', base .. 'gone', ARGV[2])
local away = gone and none(ARGV[2])
if away and away[1] == 'away' then return away end
local fence = gone and int(tonumber(string.match(gone, '^%d+')) + 1) or '1'
if fence ~= ARGV[4] then return {'moved', fence} end
local name = enc(ARGV[2])
run = {id = ARGV[2], name = name, key = base .. 'run:' .. name, was = {}, i = '0', f = fence, b = fence, c = ARGV[5]}
run.seq = #ARGV - 16
run.n = int(run.seq)
run.log = log_of(fence, '0', name)
if redis.call('LLEN', run.log) > 0 then return {'remains', run.log} end
push(run.log, 17)
head(run, 9)
local lease = hold(run, ARGV[6], ARGV[7], ARGV[8])
stage(run, {})
if not format then op('HSET', KEYS[1], 'format', '1') end
commit()
return {'made', lease}
""",
)

# mark, fence that was sealed or '', incarnation, owner's fence or '', owner's seq or '', lease (3), head (8), records
OPEN = Script(
    "open_incarnation",
    """
local run = load(ARGV[2])
if not run then return none(ARGV[2]) end
local number, fence, seq = ARGV[5], ARGV[6], ARGV[7]
local before = places(run)
if tonumber(number) <= tonumber(run.i) and number ~= '0' and marked(log_of(run.b, number, run.name), ARGV[3]) then
  local lease, busy = false, false
  if number == run.i then lease, busy = ask(run, ARGV[8], ARGV[9], ARGV[10]) end
  stage(run, before)
  commit()
  return {'again', lease, busy}
end
if fence ~= '' then
  if fence ~= run.f then return {'fenced', run.f} end
  if run.c == '1' or tonumber(number) ~= run.i + 1 or tonumber(seq) ~= run.seq then
    return {'conflict', run.seq, run.i, run.c}
  end
elseif run.c ~= '1' or tonumber(number) ~= run.i + 1 then
  return {'conflict', run.seq, run.i, run.c}
end
local new = int(tonumber(run.f) + 1)
if new ~= ARGV[4] then return {'moved', new} end
local log = log_of(run.b, number, run.name)
if redis.call('LLEN', log) > 0 then return {'remains', log} end
run.i, run.f, run.c, run.log, run.seq = number, new, '0', log, #ARGV - 18
run.n = int(run.seq)
push(log, 19)
head(run, 11)
local lease = hold(run, ARGV[8], ARGV[9], ARGV[10])
stage(run, before)
op('PUBLISH', base .. 'told:' .. run.name, '')
commit()
return {'done', lease}
""",
)

# incarnation, seq, fence, closed, release, whether there is a head, head (8, if there is one), records
APPEND = Script(
    "append",
    """
local name, first = enc(ARGV[2]), 9
if ARGV[8] == '1' then first = 17 end
local at = redis.call('HMGET', base .. 'run:' .. name, 'i', 'f', 'c', 'b')
if not at[1] then return none(ARGV[2]) end
local log = log_of(at[4], at[1], name)
local seq = redis.call('LLEN', log)
if at[1] ~= ARGV[3] or seq ~= tonumber(ARGV[4]) or at[2] ~= ARGV[5] or at[3] ~= '0' then
  local from, count = tonumber(ARGV[4]), #ARGV - first + 1
  if count > 0 and from >= 0 then
    local there = redis.call('LRANGE', log_of(at[4], ARGV[3], name), from, from + count - 1)
    local same = #there == count
    for j = 1, #there do if there[j] ~= ARGV[first + j - 1] then same = false end end
    if same then return {'again'} end
  end
  if at[2] ~= ARGV[5] then return {'fenced', at[2]} end
  return {'conflict', seq, at[1], at[3]}
end
if ARGV[6] == '0' and ARGV[7] == '0' and first == 9 then
  push(log, first)
else
  local run = load(ARGV[2])
  local before = places(run)
  push(log, first)
  run.seq = run.seq + #ARGV - first + 1
  run.n = int(run.seq)
  if first == 17 then head(run, 9) end
  run.c = ARGV[6]
  if ARGV[6] == '1' or ARGV[7] == '1' then free(run) end
  stage(run, before)
end
op('PUBLISH', base .. 'told:' .. name, '')
commit()
return {'done'}
""",
)

# attempt, incarnation or '', seq or '', position that was sealed (incarnation, seq, fence; '' if none), due or '',
# lease (3), how many records there are, records
TELL = Script(
    "tell",
    """
local run = load(ARGV[2])
if not run then return none(ARGV[2]) end
local known = redis.call('HGET', run.key, 'a:' .. ARGV[3])
local before = places(run)
if known then
  local lease, busy = ask(run, ARGV[10], ARGV[11], ARGV[12])
  stage(run, before)
  commit()
  return {'again', known, lease, busy}
end
if run.c == '1' or (ARGV[4] ~= '' and ARGV[4] ~= run.i) or (ARGV[5] ~= '' and tonumber(ARGV[5]) ~= run.seq) then
  return {'conflict', run.seq, run.i, run.c}
end
if ARGV[13] ~= '0' then
  if ARGV[6] ~= run.i or tonumber(ARGV[7]) ~= run.seq or ARGV[8] ~= run.f then
    return {'moved', run.i, run.seq, run.f}
  end
  push(run.log, 14)
  op('HSET', run.key, 'a:' .. ARGV[3], run.i .. ' ' .. int(run.seq))
end
local seq = run.seq
run.seq = seq + #ARGV - 13
run.n = int(run.seq)
if ARGV[9] ~= '' and (run.d == '' or tonumber(ARGV[9]) < tonumber(run.d)) then run.d = ARGV[9] end
local lease, busy = ask(run, ARGV[10], ARGV[11], ARGV[12])
stage(run, before)
op('PUBLISH', base .. 'told:' .. run.name, '')
if ARGV[9] ~= '' and not lease then op('PUBLISH', base .. 'told-due', '') end
commit()
return {'done', seq, run.i, lease, busy}
""",
)

# the lease (three values)
CLAIM = Script(
    "claim",
    """
local run = load(ARGV[2])
if not run then return none(ARGV[2]) end
local before = places(run)
local lease = ask(run, ARGV[3], ARGV[4], ARGV[5])
if not lease then return {'busy', row(run)} end
run.n = int(run.seq)
stage(run, before)
commit()
return {'done', lease}
""",
)

# fence, ttl
RENEW = Script(
    "renew",
    """
local run = load(ARGV[2])
if not run or run.f ~= ARGV[3] or run.u == '' then return {'lost'} end
local before = places(run)
run.u = int(now() + tonumber(ARGV[4]))
run.n = int(run.seq)
op('HDEL', run.key, '')
stage(run, before)
commit()
return {'done', {run.i, run.f, run.seq, run.u}}
""",
)

# fence
RELEASE = Script(
    "release",
    """
local run = load(ARGV[2])
if not run or run.f ~= ARGV[3] or run.u == '' then return {'lost'} end
local before = places(run)
free(run)
run.n = int(run.seq)
op('HDEL', run.key, '')
stage(run, before)
commit()
return {'done'}
""",
)

# incarnation, fence or '', token
DELETE = Script(
    "delete",
    """
local run = load(ARGV[2])
if not run then
  local gone = redis.call('HGET', base .. 'gone', ARGV[2])
  return {gone and string.match(gone, ' (%S+)$') == ARGV[5] and 'done' or 'kept'}
end
if run.c ~= '1' or run.i ~= ARGV[3] or (ARGV[4] ~= '' and ARGV[4] ~= run.f) then return {'kept'} end
op('UNLINK', run.key)
for key in pairs(places(run)) do leave(run, key) end
op('HSET', base .. 'gone', run.id, run.f .. ' ' .. run.r .. ' ' .. ARGV[5])
op('HSET', base .. 'trash', run.b .. ':' .. run.name, run.i)
op('PUBLISH', base .. 'told:' .. run.name, '')
commit()
return {'done', run.b .. ':' .. run.name, run.i}
""",
)

# a field of `trash`, how many logs at once: removes the last ones
SWEEP = Script(
    "sweep",
    """
local left = redis.call('HGET', base .. 'trash', ARGV[2])
if not left then return {'done', '0'} end
local birth, name = string.match(ARGV[2], '^([^:]+):(.*)$')
local last = tonumber(left)
local stop = math.max(0, last - tonumber(ARGV[3]) + 1)
for number = last, stop, -1 do op('UNLINK', log_of(birth, int(number), name)) end
if stop == 0 then op('HDEL', base .. 'trash', ARGV[2]) else op('HSET', base .. 'trash', ARGV[2], int(stop - 1)) end
commit()
return {'done', int(stop)}
""",
)

# (no run id) now of the caller, limit, lease (3), JSON list of fingerprints
CLAIM_DUE = Script(
    "claim_due",
    """
local limit, codes, kinds = tonumber(ARGV[4]), cjson.decode(ARGV[8]), {''}
if #codes > 0 then
  local mine = {}
  for _, code in ipairs(codes) do mine[code] = true end
  local there = redis.call('HGETALL', base .. 'kinds')
  for j = 1, #there, 2 do
    local strange = true
    for _, code in ipairs(cjson.decode(there[j + 1])) do if mine[code] then strange = false end end
    local kind = ':' .. there[j]
    if redis.call('EXISTS', base .. 'due' .. kind, base .. 'until' .. kind) == 0 then
      op('HDEL', base .. 'kinds', there[j])
    elseif strange then
      kinds[#kinds + 1] = kind
    end
  end
end
local found = {}
local function look(key, most)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', base .. key, '-inf', most, 'LIMIT', 0, limit)) do
    local run = find(id)
    if not run then
      op('ZREM', base .. key, id)
    elseif not run.damaged then
      local when = tonumber(run.d) or math.huge
      if run.u ~= '' then when = math.min(when, tonumber(run.u)) end
      found[#found + 1] = {when, run}
    end
  end
end
for _, kind in ipairs(kinds) do
  look('due' .. kind, ARGV[3])
  look('until' .. kind, int(now()))
end
table.sort(found, function(a, b)
  if a[1] ~= b[1] then return a[1] < b[1] end
  return less(a[2].id, b[2].id)
end)
local leases = {'done'}
for j = 1, math.min(limit, #found) do
  local run = found[j][2]
  local before = places(run)
  local lease = ask(run, ARGV[5], ARGV[6], ARGV[7])
  if lease then
    run.n = int(run.seq)
    stage(run, before)
    leases[#leases + 1] = {run.id, unpack(lease)}
  end
end
commit()
return leases
""",
)
