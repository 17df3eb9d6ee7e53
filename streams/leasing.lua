-- Handing out deliveries that are due: below dead_letters.lua.
local LOST_AT_MOST = 6
-- Set by `handOutDue`: how many more it may hand out, until when, under which token, and how many dead letters a subscription
-- keeps; what it has handed out, and how many deliveries it gave up as lost.
local room, leaseEnds, token, letters, taken, buried

local function take(sub, r, entry, made, lost)
  taken[#taken + 1] = { sub, r.v, entry[1], made, entry[2], lost, r.interval > 0 }
end

local function made(sub, id)
  local pending = pendingEntry(sub, id)
  return pending and pending[4] or 1
end

-- An abandoned entry keeps its count: a crash of ours is not the receiver's failure. One that outlives too many senders dies.
local function reclaim(sub, r, id)
  local dlv = key('dlv', sub)
  local times = made(sub, id)
  local lost = call('HINCRBY', key('tok', sub), id .. '#', 1)
  local entry = call('XCLAIM', dlv, 'senders', 's', 0, id, 'RETRYCOUNT', times)[1]
  if entry and lost < LOST_AT_MOST then take(sub, r, entry, times, lost) return true end
  if entry then
    local f = fields(entry)
    bury(sub, { ev = f.e, copy = f.c or 0, attempts = times + (f.a or 0), why = 'lease_lost', status = 0,
      error = 'sender after sender stopped while it held this delivery', entry = id }, letters)
    call('XACK', dlv, 'senders', id)
    call('XDEL', dlv, id)
    buried = buried + 1
  end
  forget(sub, id)
  return false
end

local function retry(sub, r, id)
  local dlv = key('dlv', sub)
  local entry = call('XCLAIM', dlv, 'senders', 's', 0, id)[1]
  if not entry then forget(sub, id) return false end
  take(sub, r, entry, made(sub, id), tonumber(call('HGET', key('tok', sub), id .. '#') or 0))
  return true
end

-- What may be leased, n at most: abandoned ids, ids whose retry is due, how many new entries.
local function candidates(sub, r, n)
  local inf, rty = key('inf', sub), key('rty', sub)
  if r.fifo then
    local head = pendingHead(sub)
    if not head then return {}, {}, 1 end
    local lease, due = call('ZSCORE', inf, head[1]), call('ZSCORE', rty, head[1])
    if lease then return tonumber(lease) <= now and { head[1] } or {}, {}, 0 end
    return {}, (not due or tonumber(due) <= now) and { head[1] } or {}, 0
  end
  local abandoned, retries = {}, {}
  if r.counts[3] > 0 then abandoned = call('ZRANGEBYSCORE', inf, '-inf', now, 'LIMIT', 0, n) end
  if r.counts[2] > 0 and #abandoned < n then retries = call('ZRANGEBYSCORE', rty, '-inf', now, 'LIMIT', 0, n - #abandoned) end
  return abandoned, retries, n - #abandoned - #retries
end

local function lease(sub, r)
  local inf, n, new = key('inf', sub), 0, 0
  -- What is under way is counted, not taken from the counts: a receiver's limit holds whatever has drifted.
  if gate(r) <= now then n = math.min(cap(r) - call('ZCOUNT', inf, '(' .. now, '+inf'), room, tokens(r)) end
  local leases, tokensHeld, retried, isKnown = {}, {}, {}, true
  local function hold(id)
    leases[#leases + 1], leases[#leases + 2] = leaseEnds, id
    tokensHeld[#tokensHeld + 1], tokensHeld[#tokensHeld + 2] = id, token
  end
  if n > 0 then
    local abandoned, retries, left = candidates(sub, r, n)
    for _, id in ipairs(abandoned) do if reclaim(sub, r, id) then hold(id) else isKnown = false end end
    for _, id in ipairs(retries) do
      if retry(sub, r, id) then hold(id) retried[#retried + 1] = id else isKnown = false end
    end
    local read = left > 0 and call('XREADGROUP', 'GROUP', 'senders', 's', 'COUNT', left, 'STREAMS', key('dlv', sub), '>')
    for _, entry in ipairs(read and read[1][2] or {}) do take(sub, r, entry, 1, 0) hold(entry[1]) new = new + 1 end
  end
  local got = #leases / 2
  if got > 0 then
    call('ZADD', inf, unpack(leases))
    call('HSET', key('tok', sub), unpack(tokensHeld))
    if #retried > 0 then call('ZREM', key('rty', sub), unpack(retried)) end
    if r.interval > 0 then
      r.tat = math.max(r.tat, now) + got * r.interval
      set(sub, 'tat', r.tat)
    end
    room = room - got
    return handOut(sub, r, new, #retried, isKnown)
  end
  -- Whatever it looked at and took nothing from is due later, so that no subscription can be looked at without end.
  arrange(sub, r, now + 1)
end

local function handOutOf(sub, known)
  local r = known[sub] and known[sub].r or load(sub)
  if r and r.st == 'a' then lease(sub, r) else call('ZREM', KEYS[1], sub) end
end

-- Hands out abandoned entries, then retries, then new ones, within the limits of each subscription whose turn it is: `looks`
-- subscriptions and `most` entries, for so many ms. `known` has the state (r) of subscriptions that the call has read. Returns
-- MessagePack: [now, next due or "", token, entries, given up as lost]; an entry is [sub, config version, id, its count in the
-- pending list, its fields, leases lost in a row, whether the rate limit counted it]. Or nil, an error, and the subscription that
-- makes it; `mirror` is to follow.
local function handOutDue(looks, most, ms, chance, maxDead, known)
  room, leaseEnds, letters, taken, buried = tonumber(most), int(now + ms), tonumber(maxDead), {}, 0
  token = string.format('%.0f-%s', now, chance)
  for _, sub in ipairs(call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, looks)) do
    if room <= 0 then break end
    local before = #taken
    local ok, err = pcall(handOutOf, sub, known)
    if not ok then
      local text = type(err) == 'table' and err.err or tostring(err)
      if text:find('NOGROUP', 1, true) then
        -- With the group went what it had handed out: every entry that is left is new.
        call('XGROUP', 'CREATE', key('dlv', sub), 'senders', '0', 'MKSTREAM')
        call('UNLINK', key('inf', sub), key('rty', sub), key('tok', sub))
        arrange(sub, load(sub))
      else
        -- What it took is no lease yet: the audit finds it. What the others have is told; the next call meets this error first.
        for i = #taken, before + 1, -1 do taken[i] = nil end
        if #taken + buried > 0 then break end
        return nil, text, sub
      end
    end
  end
  return cmsgpack.pack({ now, firstDue(), token, taken, buried })
end
