"""The scripts of the Redis store, one for each operation: the server runs each as a whole, with nothing in between.

A script that fails is not undone. So each looks at all that it needs, checks types and positions, and puts what it
wants to change into a list; only then `commit` looks once more at the type of every key and changes them. The first
change is one that a full server refuses, so it refuses all of them or none; what must go through on a full server
(`renew`, `release`, `delete`) begins with one that it takes.

Keys, all with the prefix in braces, so that a cluster keeps them on one node; NAME is a run id, percent-encoded:

    meta                      hash: `format`, the version of this layout
    run:NAME                  hash: the run's row (see `FIELDS`), and `a:ATTEMPT` for each attempt from outside
    log:BIRTH:INCARNATION:NAME  list: sealed records; BIRTH is the fence that the run was created with, or text that
                              was made when it began to arrive from another store
    ix:INDEX                  sorted set of run ids by created: all, open, closed, leased, status:S, ...
    due, due:KIND             sorted set of runs that nobody holds by due; KIND stands for what blocks them
    until, until:KIND         sorted set of runs that are held by the end of the lease
    kinds                     hash: KIND -> JSON list of fingerprints
    fin:WORKFLOW, fins        sorted set of closed runs by updated; the workflows that have any
    gone                      hash: run id -> fence and created of a run that was deleted, or moved away; fence 0:
                              there was none yet, and one arrives
    trash                     hash: logs of deleted runs that are still to be removed
    move:NAME                 hash: `a` the run that arrives under this id, `t` its token, `i` its incarnation, `l` the
                              BIRTH of its logs, which no other has; `d` where the run of this id went
    in:NAME                   hash: attempts of the records that are staged, as a run's row has them
    arriving                  sorted set of the ids under which runs arrive

Numbers stay text, since Lua would write large ones with an exponent.
"""

from __future__ import annotations

import hashlib

__all__ = ["FORMAT", "Script"]

FORMAT = "1"
"""Version of the layout of keys."""

_PRELUDE = """
local base = string.sub(KEYS[1], 1, -5)
local format = redis.call('HGET', KEYS[1], 'format')
if format and format ~= '%s' then return {'format', format} end

local clock
local function now()
  if not clock then
    if ARGV[1] ~= '' then clock = tonumber(ARGV[1])
    else local t = redis.call('TIME'); clock = t[1] * 1000000 + t[2] end
  end
  return clock
end
local function int(n) return string.format('%%.0f', n) end
local function enc(text)
  return (string.gsub(text, '[^A-Za-z0-9_.~-]', function(c) return string.format('%%%%%%02X', string.byte(c)) end))
end
local function begins(text, with) return string.sub(text, 1, #with) == with end

-- i incarnation, n records that there were at least, f fence, c closed, h head, d due, u end of the lease, o its owner,
-- t its token, x names of indexes, r created, p updated, w workflow, k what blocks it, b fence that it was created with
local FIELDS = {'i', 'n', 'f', 'c', 'h', 'd', 'u', 'o', 't', 'x', 'r', 'p', 'w', 'k', 'b'}
local NEEDED = {'i', 'n', 'f', 'c', 'h', 'x', 'r', 'p', 'b'}

local function log_of(birth, incarnation, name) return base .. 'log:' .. birth .. ':' .. incarnation .. ':' .. name end
local function find(id)
  local name = enc(id)
  local key = base .. 'run:' .. name
  local found = redis.call('HMGET', key, unpack(FIELDS))
  if not found[1] and redis.call('EXISTS', key) == 0 then return nil end
  local run, was = {}, {}
  for j, field in ipairs(FIELDS) do run[field], was[field] = found[j] or '', found[j] or '' end
  run.id, run.name, run.key, run.was = id, name, key, was
  for _, field in ipairs(NEEDED) do if run[field] == '' then run.damaged = field end end
  if not run.damaged then
    run.log = log_of(run.b, run.i, name)
    run.seq = redis.call('LLEN', run.log)
  end
  return run
end
local function load(id)
  local run = find(id)
  if run and run.damaged then error('DAMAGED ' .. run.key .. ' field ' .. run.damaged .. ' is missing') end
  return run
end
-- the answer when there is no such run: where it is, if that is known
local function none(id)
  local at = redis.call('HMGET', base .. 'move:' .. enc(id), 'a', 'd')
  if at[1] or at[2] then return {'away', at[1], at[2]} end
  return {'none'}
end
local function live(run) return run.u ~= '' and tonumber(run.u) > now() end
local function row(run)
  return {run.id, run.i, run.seq, run.f, run.c, live(run) and run.u or '', run.d, run.h, run.n}
end

-- in which sorted sets a run is, and with which score
local function places(run)
  local at = {['ix:all'] = run.r}
  for name in string.gmatch(run.x, '[^\\n]+') do at['ix:' .. name] = run.r end
  local kind = run.k
  if kind ~= '' then kind = ':' .. kind end
  if run.c == '1' then
    at['ix:closed'] = run.r
    at['fin:' .. enc(run.w)] = run.p
  else
    at['ix:open'] = run.r
    if run.u ~= '' then
      at['ix:leased'] = run.r
      at['until' .. kind] = run.u
    elseif run.d ~= '' then
      at['due' .. kind] = run.d
    end
  end
  return at
end

local ops = {}
local function op(...) ops[#ops + 1] = {...} end
local PROBES = {
  RPUSH = 'LLEN', LSET = 'LLEN', LTRIM = 'LLEN', HSET = 'HLEN', HDEL = 'HLEN', ZADD = 'ZCARD', ZREM = 'ZCARD'
}
local function commit()
  for _, o in ipairs(ops) do if PROBES[o[1]] then redis.call(PROBES[o[1]], o[2]) end end
  for _, o in ipairs(ops) do redis.call(unpack(o)) end
end
local function push(log, first)
  for at = first, #ARGV, 1000 do op('RPUSH', log, unpack(ARGV, at, math.min(at + 999, #ARGV))) end
end

local function leave(run, key)
  op('ZREM', base .. key, run.id)
  if begins(key, 'fin:') and redis.call('ZCARD', base .. key) <= 1 then op('ZREM', base .. 'fins', run.was.w) end
end
-- what is to be changed, so that the server has the run as it is now, which it had with its places as in `before`
local function stage(run, before)
  local set = {run.key}
  for _, field in ipairs(FIELDS) do
    if run[field] ~= run.was[field] then set[#set + 1] = field; set[#set + 1] = run[field] end
  end
  if #set > 1 then op('HSET', unpack(set)) end
  local after, told = places(run), false
  for key in pairs(before) do if not after[key] then leave(run, key) end end
  for key, score in pairs(after) do
    if before[key] ~= score then
      op('ZADD', base .. key, score, run.id)
      if begins(key, 'fin:') then op('ZADD', base .. 'fins', 0, run.w) end
      if key == 'due' or begins(key, 'due:') then told = true end
    end
  end
  if told then op('PUBLISH', base .. 'told-due', '') end
end

local function free(run) run.u, run.o, run.t = '', '', '' end
local function hold(run, ttl, owner, token)
  free(run)
  if ttl == '' or run.c == '1' then return false end
  run.u, run.o, run.t = int(now() + tonumber(ttl)), owner, token
  return {run.i, run.f, run.seq, run.u}
end
-- the lease, if it is free or was granted to this very request; and until when it is busy
local function ask(run, ttl, owner, token)
  if ttl == '' or run.c == '1' then return false, false end
  if live(run) then
    if token ~= '' and run.t == token then return {run.i, run.f, run.seq, run.u}, false end
    return false, run.u
  end
  run.f = int(tonumber(run.f) + 1)
  return hold(run, ttl, owner, token), false
end
-- the eight values of a head, from ARGV[at] on
local function head(run, at)
  run.h, run.d, run.x, run.r = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  run.p, run.w, run.k = ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
  if run.k ~= '' then op('HSET', base .. 'kinds', run.k, ARGV[at + 7]) end
end
local function marked(log, mark)
  local first = redis.call('LINDEX', log, 0)
  return first and string.find(string.sub(first, 1, 400), mark, 1, true) ~= nil
end

-- how many members of a sorted set come before (score, id)
local function less(a, b)
  for j = 1, math.min(#a, #b) do
    local x, y = string.byte(a, j), string.byte(b, j)
    if x ~= y then return x < y end
  end
  return #a < #b
end
local function rank(key, score, id)
  local low = redis.call('ZCOUNT', key, '-inf', '(' .. score)
  local high = low + redis.call('ZCOUNT', key, score, score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if less(redis.call('ZRANGE', key, middle, middle)[1], id) then low = middle + 1 else high = middle end
  end
  return low
end
"""


class Script:
    """One script, with what all share in front of it.

    Attributes:
        name: of the operation.
        text: the whole script.
        sha: by which a server that has it knows it.
    """

    def __init__(self, name: str, body: str) -> None:
        self.name = name
        self.text = f"{_PRELUDE % FORMAT}\n{body.strip()}\n"
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
