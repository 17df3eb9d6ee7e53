#!lua
-- Appends events to the log of one shard, each once. Refused when memory is short, before any write.
-- ARGV 2 call id  3 ms that a key is remembered  4 events (MessagePack, each an array: nonce, type, tenant, ts,
--        conversation id, to, hashes of its keys, hash of type and body, id at the source, fault, traceparent; "" for what is absent)
--      5 who moves the front door, or ""  6 its ids whose acknowledgement is confirmed (MessagePack)
--      7… the body of each event (apart, since cmsgpack reads no binary)
-- An event with a fault could not be read: its body is the raw fields, and it is kept as a dead letter.
-- An event of a tenant that stores as much as it may is refused; from a source, where nobody can be told, it is kept as a
-- dead letter.
-- Returns MessagePack, one array an event: "ok" ev nonce | "same" ev nonce | "conflict" | "full" | "moved" | "bad" id
-- Errors: FULL while the janitor keeps the gate closed; STALE where another has begun to move the front door since: what the one
-- before it still sends would be forgotten by the time it comes.
local callKey, mover = key('call', ARGV[2]), ARGV[5]
local kept = call('GET', callKey)
if kept then return kept end
if mover ~= '' and call('HGET', P .. ':meta', 'mover') ~= mover then
  return redis.error_reply('STALE another process moves the front door')
end
if call('HGET', P .. ':meta', 'gate') == '1' then return redis.error_reply('FULL Redis is near its memory limit') end

local moving, nowText = key('mv', 'in'), int(now)

local function bad(tenant, why, raw)
  return { 'bad', call('XADD', P .. ':deadev', '*', 'tn', tenant, 'why', why, 'raw', raw) }
end

-- The newest change of a tenant's subscriptions; and whether it may have so much stored: what a call appends counts once it
-- is expanded.
local versions, isFull = {}, {}
local function version(tenant)
  versions[tenant] = versions[tenant] or call('HGET', P .. ':cfgv', tenant) or '0-0'
  return versions[tenant]
end

local function full(tenant)
  if isFull[tenant] == nil then
    local limit = tonumber(call('HGET', P .. ':lim', tenant) or 0)
    isFull[tenant] = limit > 0 and tonumber(call('HGET', P .. ':owed', tenant) or 0) >= limit
  end
  return isFull[tenant]
end

-- An event as a producer would add it at the front door: the raw fields of a dead letter.
local function raw(event, body)
  local named = { type = event[2], tenant = event[3], data = body }
  if event[4] ~= '' then named.timestamp = event[4] end
  if event[5] ~= '' then named.conversation_id = event[5] end
  if event[11] ~= '' then named.traceparent = event[11] end
  return cmsgpack.pack(named)
end

local function append(nonce, type, tenant, ts, body, conversation, to, trace)
  local event = { 'i', nonce, 'v', version(tenant), 't', type, 'tn', tenant, 'ts', ts == '' and nowText or ts, 'b', body }
  if conversation ~= '' then event[#event + 1], event[#event + 2] = 'cv', conversation end
  if to ~= '' then event[#event + 1], event[#event + 2] = 'to', to end
  if trace ~= '' then event[#event + 1], event[#event + 2] = 'tp', trace end
  return call('XADD', P .. ':events', '*', unpack(event))
end

-- The event that came with one of these keys, as it is kept; nil where none did.
local function seen(tenant, hashes)
  if hashes == '' then return end
  for hash in hashes:gmatch('%S+') do
    local known = call('GET', key('idem', tenant .. ':' .. hash))
    if known then return known end
  end
end

local function publish(event, body)
  local nonce, type, tenant, ts, conversation, to, idem, same, inId, fault, trace = unpack(event, 1, 11)
  -- What comes again is remembered anew: it is not done yet at the source.
  if inId ~= '' and call('ZADD', moving, now, inId) == 0 then return { 'moved' } end
  if fault ~= '' then return bad(tenant, fault, body) end
  local known = seen(tenant, idem)
  if known then
    local ev, itsNonce, itsSame = known:match('^(%S+) (%S+) (%S+)$')
    if itsSame == same then
      for hash in idem:gmatch('%S+') do call('SET', key('idem', tenant .. ':' .. hash), known, 'NX', 'PX', ARGV[3]) end
      return { 'same', ev, itsNonce }
    end
    if inId == '' then return { 'conflict' } end
    return bad(tenant, 'idempotency_conflict: the same key came before with another type or data', raw(event, body))
  end
  if full(tenant) then
    if inId == '' then return { 'full' } end
    return bad(tenant, 'tenant_full: the tenant has as much waiting as it may (max_stored_mb)', raw(event, body))
  end
  local ev = append(nonce, type, tenant, ts, body, conversation, to, trace)
  if idem == '' then return { 'ok', ev, nonce } end
  for hash in idem:gmatch('%S+') do
    call('SET', key('idem', tenant .. ':' .. hash), ev .. ' ' .. nonce .. ' ' .. same, 'PX', ARGV[3])
  end
  return { 'ok', ev, nonce }
end

local results = {}
for i, event in ipairs(cmsgpack.unpack(ARGV[4])) do results[i] = publish(event, ARGV[6 + i]) end
local acked = mover ~= '' and cmsgpack.unpack(ARGV[6]) or {}
if #acked > 0 then
  call('ZREM', moving, unpack(acked))
  -- What a mover that was killed has left comes again first, however late: before all of it has come none is confirmed.
  call('ZREMRANGEBYSCORE', moving, '-inf', now - 3600000)
end
local answer = cmsgpack.pack(results)
call('SET', callKey, answer, 'PX', 60000)
return answer
