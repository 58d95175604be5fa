-- Closes a granted call: see `Store::settle`. Once done, doing it again changes nothing.
--
-- KEYS  as of admit.lua
-- ARGV  1 verdict: d done | r release | R release, and give the tenant's charge back | u uncertain
--       2 packed doubles: the clock in tests (else -1: TIME), R, B, the last attempt's m where Connect throttled it
--         (else -1), tenant's rate, burst, when the result ends, in us of Redis TIME (else -1)
--       3 the nonce
--       4 with d: the sealed result
-- Reply 1 where the claim was this nonce's, else 0

local verdict, nonce = ARGV[1], ARGV[3]
local clock, rate, burst, throttled, tenant_rate, tenant_burst, expires = unpack('<ddddddd', ARGV[2])
local gives_back = verdict == 'R'
local kept = gives_back and redis.call('MGET', KEYS[1], KEYS[2]) or redis.call('MGET', KEYS[1])
local up = advance(kept[1], clock, rate, burst, throttled)
local m = up.m
store(KEYS[1], up, 0)

local score = redis.pcall('ZSCORE', KEYS[3], nonce)
local removed = type(score) == 'string' and redis.call('ZREM', KEYS[3], nonce) == 1 and runs(tonumber(score), m)
local ours = removed

-- Where nothing is kept the bucket is full.
local level, at, share, share_phi = tenant(removed and kept[2])
if level then
  local refilled = level + tenant_rate * max(0, m - at) / 1e6
  level = min(tenant_burst, max(-1, min(tenant_burst, refilled)) + 1)
  redis.call('SET', KEYS[2], pack(TENANT, LAYOUT, level, m, share, share_phi), 'KEEPTTL')
end

if KEYS[4] then
  local got = redis.pcall('HMGET', KEYS[4], 'state', 'nonce', 'sticky', 'times')
  local lease, ends_at, body_until
  if not got.err then lease, ends_at, body_until = times(got[4]) end
  ours = lease and got[1] == 'f' and got[2] == nonce and ends_at > m
  if ours and verdict == 'd' then
    body_until = ends_at
    if expires >= 0 then body_until = min(ends_at, m + expires - up.now) end
  end
  if not ours then
    -- The claim is another's, or was closed: only the lease was ours to free.
  elseif verdict ~= 'd' and verdict ~= 'u' and got[3] == '0' and body_until == -1 then
    redis.call('DEL', KEYS[4])
  elseif verdict == 'd' and body_until > m then
    redis.call('HSET', KEYS[4], 'state', 'd', 'times', pack('<ddd', lease, ends_at, body_until), 'body', ARGV[4])
  elseif verdict ~= 'd' and body_until == -1 then
    redis.call('HSET', KEYS[4], 'state', 'u', 'sticky', '1')
  elseif body_until > m then
    -- It was only to be sealed anew: the body is what it was.
    redis.call('HSET', KEYS[4], 'state', 'd', 'sticky', '1')
  else
    redis.call('HSET', KEYS[4], 'state', 't', 'times', pack('<ddd', lease, ends_at, -1))
    redis.call('HDEL', KEYS[4], 'body')
  end
end

return ours and 1 or 0
