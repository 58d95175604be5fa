-- Closes a granted call, or undoes an ask that ended without a grant: see `Store::settle`. A repeat
-- changes nothing.
--
-- KEYS  as of admit.lua
-- ARGV  1 verdict: done | release | refund (release, and give the tenant's charge back) | uncertain
--       2 figures, packed doubles in the order in which they are unpacked below; times in us
--       3 nonce
--       4 tenant
--       5 with done: the sealed result
-- Reply 1 if the claim was this nonce's, else 0

local verdict, nonce, tenant_name = ARGV[1], ARGV[3], ARGV[4]
local clock, -- in tests; else -1: TIME
  rate, burst,
  throttled, -- m of the last attempt, if Connect throttled it; else -1
  tenant_rate, tenant_burst,
  expires -- when the result ends, by Redis TIME; -1: never
  = struct.unpack('<ddddddd', ARGV[2])

local releases = verdict == 'release' or verdict == 'refund'
local kept = releases and redis.call('MGET', KEYS[1], KEYS[2]) or redis.call('MGET', KEYS[1])
local up = advance(kept[1], clock, rate, burst, throttled)
local m = up.m
store(KEYS[1], up, 0)

local score = try('ZSCORE', KEYS[3], nonce)
local removed = false
if type(score) == 'string' then
  score = tonumber(score)
  -- A negative score is the lease of a call that shadow enforcement let through.
  removed = redis.call('ZREM', KEYS[3], nonce) == 1 and runs(score, m)
end
local ours = removed or (type(score) == 'number' and runs(-score, m))

local has_left = false
if releases and try('ZCARD', KEYS[4]) ~= 0 then
  local paid = { member(nonce, 'call', tenant_name), member(nonce, 'committed', tenant_name) }
  local unpaid = { member(nonce, 'attempt', tenant_name), member(nonce, 'rate', tenant_name),
    member(nonce, 'in_flight', tenant_name) }
  has_left = try('ZREM', KEYS[4], unpack(paid)) == 1
  try('ZREM', KEYS[4], unpack(unpaid))
  try('ZREM', KEYS[5], paid[1], paid[2], unpack(unpaid))
end

-- If nothing is stored, the bucket is full.
local tenant = (has_left or (removed and verdict == 'refund')) and read_tenant(kept[2])
if tenant then
  local refilled = tenant.level + tenant_rate * max(0, m - tenant.at) / 1e6
  tenant.level = min(tenant_burst, max(-1, min(tenant_burst, refilled)) + 1)
  tenant.at = m
  if has_left then tenant.queued = max(0, tenant.queued - 1) end
  redis.call('SET', KEYS[2], pack_tenant(tenant), 'KEEPTTL')
end

if KEYS[7] then
  local fields = try('HMGET', KEYS[7], 'state', 'nonce', 'sticky', 'times')
  local state, holder, sticky = fields[1], fields[2], fields[3]
  local lease, ends_at, body_until
  if not fields.err then lease, ends_at, body_until = times(fields[4]) end
  ours = lease and state == 'in_flight' and holder == nonce and ends_at > m
  if ours and verdict == 'done' then
    body_until = ends_at
    if expires >= 0 then body_until = min(ends_at, m + expires - up.now) end
  end
  if not ours then
    -- The claim is another call's, or was closed: only the lease was this call's.
  elseif releases and sticky == '0' and body_until == -1 then
    redis.call('DEL', KEYS[7])
  elseif verdict == 'done' and body_until > m then
    redis.call('HSET', KEYS[7], 'state', 'done',
      'times', pack('times', lease, ends_at, body_until), 'body', ARGV[5])
  elseif verdict ~= 'done' and body_until == -1 then
    redis.call('HSET', KEYS[7], 'state', 'uncertain', 'sticky', '1')
  elseif body_until > m then
    -- The takeover was only to seal the body anew: the body is unchanged.
    redis.call('HSET', KEYS[7], 'state', 'done', 'sticky', '1')
  else
    redis.call('HSET', KEYS[7], 'state', 'tombstone',
      'times', pack('times', lease, ends_at, -1))
    redis.call('HDEL', KEYS[7], 'body')
  end
end

return ours and 1 or 0
