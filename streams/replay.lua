#!lua
-- Puts events of the log at the end of one subscription's delivery stream, for a job. Refused when memory is short.
-- ARGV 2 sub  3 job  4 cursor expected  5 next cursor  6 state after: running | done  7 backlog limit  8 events (MessagePack)
-- Returns {queued, refusal or "", its argument}: CURSOR c (the job is there) | LATER (the backlog is full, or an event is not
-- expanded yet) | GONE (so is the job)
local sub, job = ARGV[2], key('rpl', ARGV[3])

local function finish(state)
  call('HSET', job, 'state', state)
  call('SREM', P .. ':jobs', ARGV[3])
  call('PEXPIRE', job, 86400000)
end

local at = call('HGET', job, 'cursor')
if not at then return { 0, 'GONE', '' } end
if at ~= ARGV[4] then return { 0, 'CURSOR', at } end
local r = load(sub)
if not r or r.st == 'd' then
  finish('cancelled')
  return { 0, 'GONE', '' }
end
local evs = cmsgpack.unpack(ARGV[8])
local backlog = call('XLEN', key('dlv', sub))
-- An empty one takes what is asked, or a limit below a page would never let any through.
if backlog > 0 and backlog + #evs > tonumber(ARGV[7]) then return { 0, 'LATER', '' } end
-- An event still to be expanded would take the same copy twice.
local expanded = call('HGET', P .. ':meta', 'hwm') or '0-0'
for _, ev in ipairs(evs) do
  if before(expanded, ev) then return { 0, 'LATER', '' } end
end

-- The first copy that the event has not had for this subscription. Above TRACKED_TARGETS the first is not noted.
local function copyOf(ev)
  local evsKey = key('evs', ev)
  local copy = tonumber(call('HGET', evsKey, 'n') or 0) > TRACKED_TARGETS and 1 or 0
  while call('HEXISTS', evsKey, sub .. '#' .. copy) == 1 do copy = copy + 1 end
  return copy
end

local queued = 0
for _, ev in ipairs(evs) do
  if #call('XRANGE', P .. ':events', ev, ev) > 0 or call('EXISTS', key('pay', ev)) == 1 then
    local copy = copyOf(ev)
    call('HINCRBY', P .. ':refs', ev, 1)
    local entry = call('XADD', key('dlv', sub), '*', 'e', ev, 'c', copy)
    call('HINCRBY', key('evs', ev), 'n', 1)
    call('PERSIST', key('evs', ev))
    note(ev, sub, copy, 'p', entry, 0, 0)
    queued = queued + 1
  end
end
call('HSET', job, 'cursor', ARGV[5])
call('HINCRBY', job, 'queued', queued)
if ARGV[6] == 'done' then finish('done') end
plan(sub, r)
ring()
return { queued, '', '' }
