#!lua
-- Sends one delivery once more: one that waits for its retry is due now, one that has ended is put to its subscription
-- again as the event's next copy. Refused when memory is short, before any write.
-- ARGV 2 call id  3 sub  4 ev  5 copy  6 backlog limit
-- A repeat with the same call id gets the answer of the first.
-- Returns {what, its argument}: "due" | "open" (not tried yet, or under way) | "dead" entry (redrive it) | "copy" number |
-- "full" | "gone" (the subscription) | "lost" (the event's body) | "many" (copies) | "unknown" (the delivery)
local callKey, sub, ev, copy = key('call', ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local kept = call('GET', callKey)
if kept then return { kept:match('^(%a+) ?(.*)$') } end

local r = load(sub)
if not r or r.st == 'd' then return { 'gone', '' } end
local noted = call('HGET', key('evs', ev), sub .. '#' .. copy)
if not noted then return { 'unknown', '' } end
local state, entry = noted:match('^(%a) (%S+)')
if state == 'd' then return { 'dead', entry } end
if state == 'p' and not call('ZSCORE', key('rty', sub), entry) then return { 'open', '' } end

local answer
if state == 'p' then
  call('ZADD', key('rty', sub), now, entry)
  answer = { 'due', '' }
else
  if call('XLEN', key('dlv', sub)) >= tonumber(ARGV[6]) then return { 'full', '' } end
  local again, why = putAgain(sub, ev)
  if not again then return { why, '' } end
  answer = { 'copy', again }
end
call('SET', callKey, answer[1] .. ' ' .. answer[2], 'PX', 60000)
clearFaults(sub, r)
plan(sub, r)
ring()
return { answer[1], tostring(answer[2]) }
