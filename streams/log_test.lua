#!lua flags=allow-oom
-- Keeps the record of a test send. One that succeeded clears what earlier failures hold back; nothing else counts.
-- ARGV 2 sub  3 success: 1 or 0  4 status or 0  5 type  6 the record of the attempt
-- Returns the record's id; "" where the subscription is gone
local sub, success, status, type, text = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
local r = load(sub)
if not r or r.st == 'd' then return '' end
local listed = {}
local id = keepAttempt(listed, success == 1, status, type, text, 'l', 0, 's', 1)
listAttempts(sub, listed)
call('HSET', key('rt', sub), 'last', now)
if success == 1 and (r.cf > 0 or r.hold > 0) then
  clearBreaker(sub, r)
  plan(sub, r)
  ring()
end
return id
