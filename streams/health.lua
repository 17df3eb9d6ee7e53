-- An endpoint's health, below dead_letters.lua: its breaker, when it is disabled, and what its tenant is told of it.
-- What deliveries of the engine's own events do changes the health, and tells nobody.
local BREAKER_FAILURES, BREAKER_MS, BREAKER_HOLD = 5, 10000, 500
-- {subscription, why} of each that this call has disabled.
local disabled
atBegin(function() disabled = {} end)

-- It keeps collecting. What is under way finishes; all else waits until somebody resumes it.
local function disable(sub, r, reason, why, type)
  if r.st == 'd' or r.st == 'x' then return end
  local rt = key('rt', sub)
  local tenant = call('HGET', rt, 'tn') or ''
  local version = call('XADD', P .. ':cfglog', 'MAXLEN', '~', 10000, '*', 's', sub)
  call('HSET', P .. ':cfgv', tenant, version)
  if not isOwn(type) then
    if r.down == 0 then r.down = r.cf > 0 and r.cfat or now end
    tell(tenant, 'posthaste.webhook.disabled', { webhook_id = sub, reason = reason, disabled_at_ms = now })
  end
  call('HSET', rt, 'st', 'x', 'why', why, 'since', now, 'v', version, 'down', r.down)
  r.st, r.v = 'x', version
  disabled[#disabled + 1] = { sub, why }
end

-- Failures that began before an earlier one was known are one failure with it: ten requests that fail together are one.
-- Those before the breaker opens do not lengthen its first hold, however many there were; each after it doubles the next.
local function fail(sub, r, began, weight, type, disableAfter)
  if began <= r.cfl then return end
  if r.cf == 0 then r.cfat = now end
  r.cf, r.cfl = r.hold > 0 and r.cf + weight or math.min(r.cf + weight, BREAKER_FAILURES), now
  local failing = now - r.cfat
  if r.cf >= BREAKER_FAILURES and failing >= BREAKER_MS then
    r.hold = now + math.min(HOLD_MAX, BREAKER_HOLD * 2 ^ math.min(r.cf - BREAKER_FAILURES, 12))
    if r.down == 0 and not isOwn(type) then r.down = r.cfat end
  end
  call('HSET', key('rt', sub), 'cf', r.cf, 'cfat', r.cfat, 'cfl', r.cfl, 'hold', r.hold, 'down', r.down)
  -- One that its owner has paused stays so.
  if r.st == 'a' and r.cf >= BREAKER_FAILURES and failing >= disableAfter then
    disable(sub, r, 'failing', 'failing ' .. math.floor(failing / 3600000), type)
  end
end

local function succeed(sub, r, began, type)
  if r.cf == 0 and r.down == 0 or began <= r.cfl then return end
  local rt = key('rt', sub)
  if r.down > 0 and r.st == 'a' and not isOwn(type) then
    tell(call('HGET', rt, 'tn') or '', 'posthaste.webhook.recovered',
      { webhook_id = sub, failing_since_ms = r.down, recovered_at_ms = now })
    call('HSET', rt, 'down', 0)
    r.down = 0
  end
  clearBreaker(sub, r)
end

local function keepAway(sub, r, ms)
  if ms == 0 or not r then return end
  r.ra = math.max(r.ra, now + math.min(ms, RETRY_AFTER_MAX))
  call('HSET', key('rt', sub), 'ra', r.ra)
end
