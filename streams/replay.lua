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
local expanded = expandedUpTo()
for _, ev in ipairs(evs) do
  if before(expanded, ev) then return { 0, 'LATER', '' } end
end

local queued = 0
for _, ev in ipairs(evs) do
  if putAgain(sub, ev) then queued = queued + 1 end
end
call('HSET', job, 'cursor', ARGV[5])
call('HINCRBY', job, 'queued', queued)
if ARGV[6] == 'done' then finish('done') end
plan(sub, r)
ring()
return { queued, '', '' }
