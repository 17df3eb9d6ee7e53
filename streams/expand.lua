#!lua
-- Puts events on the delivery streams of those who want them, in log order and each once. Refused when memory is short.
-- ARGV 2 backlog limit  3 dead letter limit  4 events (MessagePack, each an array:
--        ev, cursor expected, next cursor or "" with the last chunk, 1 to note each target, type, nonce, tenant, bytes of its body,
--        subscriptions sorted)
-- The cursor is the last subscription done: those added or removed meanwhile shift nothing.
-- Returns {events done, refusal or "", its argument, deliveries beyond a backlog}: ORDER ev (that one comes first) | CURSOR c (go on after c)
local maxBacklog, maxDead = tonumber(ARGV[2]), tonumber(ARGV[3])
local log, refs = P .. ':events', P .. ':refs'

local overflowed = 0

local function deliver(ev, type, nonce, sub)
  local dlv = key('dlv', sub)
  if call('XLEN', dlv) < maxBacklog then return call('XADD', dlv, '*', 'e', ev) end
  overflowed = overflowed + 1
  bury(sub, { ev = ev, copy = 0, type = type, nonce = nonce, attempts = 0, why = 'overflow', status = 0,
    error = 'the webhook had as many deliveries waiting as it may have', entry = ev }, maxDead)
end

-- Counted first: a script cut short may leak a reference, never free a body too early.
local function expand(ev, track, type, nonce, tenant, bytes, subs)
  if #subs == 0 then return end
  local evs, notes, taken = key('evs', ev), {}, 0
  if call('HINCRBY', refs, ev, #subs) == #subs then owe(ev, tenant, bytes) end
  call('HINCRBY', evs, 'n', #subs)
  for _, sub in ipairs(subs) do
    local r = load(sub)
    if r and r.st ~= 'd' then
      taken = taken + 1
      local entry = deliver(ev, type, nonce, sub)
      if entry and track == 1 then notes[#notes + 1], notes[#notes + 2] = sub .. '#0', 'p ' .. entry end
      plan(sub, r)
    end
  end
  if #notes > 0 then call('HSET', evs, unpack(notes)) end
  if taken < #subs then
    -- An event whose targets are not all noted keeps a count above those that are.
    if track == 1 then call('HINCRBY', evs, 'n', taken - #subs) end
    if call('HINCRBY', refs, ev, taken - #subs) <= 0 then disown(ev) end
  end
end

local done = 0
for _, item in ipairs(cmsgpack.unpack(ARGV[4])) do
  local ev, cursor, following, track, type, nonce, tenant, bytes, subs = unpack(item, 1, 9)
  local head = call('XPENDING', log, 'dispatchers', '-', '+', 1)[1]
  if head and head[1] == ev then
    local at = call('HGET', P .. ':exp', ev) or ''
    if at ~= cursor then return { done, 'CURSOR', at, overflowed } end
    expand(ev, track, type, nonce, tenant, bytes, subs)
    if following == '' then
      call('HSET', P .. ':meta', 'hwm', ev)
      call('HDEL', P .. ':exp', ev)
      if call('HEXISTS', refs, ev) == 0 then expire(ev) end
      call('XACK', log, 'dispatchers', ev)
    else
      call('HSET', P .. ':exp', ev, following)
    end
  elseif #call('XPENDING', log, 'dispatchers', ev, ev, 1) > 0 then
    return { done, 'ORDER', head[1], overflowed }
  end
  done = done + 1
end
ring()
return { done, '', '', overflowed }
