-- Closes a granted call: see `Store::settle`. Once done, doing it again changes nothing.
--
-- KEYS  as of admit.lua
-- ARGV  1 verdict: d done | r release | R release, and give the tenant's charge back | u uncertain
--       2 the clock, in tests; empty: TIME
--       3 R, 4 B, 5 the nonce, 6 the last attempt's m where Connect throttled it, else -1
--       7 tenant's rate, 8 burst
--       with d: 9 sealed, 10 when it ends, in us of Redis TIME (text), or empty
-- Reply 1 where the claim was this nonce's, else 0

local verdict, nonce = ARGV[1], ARGV[5]
local up = advance(KEYS[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[6]))
local m = up.m
store(up, 0)

local score = number(redis.pcall('ZSCORE', KEYS[3], nonce))
local removed = score and redis.call('ZREM', KEYS[3], nonce) == 1 and runs(score, m)
local ours = removed

if removed and verdict == 'R' then
  local got = fields(KEYS[2], 'level', 'at')
  local level, at = number(got[1]), number(got[2], m)
  -- No hash: the bucket is full.
  if level then
    local rate, burst = tonumber(ARGV[7]), tonumber(ARGV[8])
    level = math.min(burst, level + rate * math.max(0, m - at) / 1e6 + 1)
    redis.call('HSET', KEYS[2], 'level', level, 'at', m)
  end
end

if KEYS[4] then
  local got = fields(KEYS[4], 'state', 'nonce', 'sticky', 'until', 'body_until')
  local ends_at, body_until = number(got[4], 0), number(got[5])
  ours = got[1] == 'f' and got[2] == nonce and ends_at > m
  if ours and verdict == 'd' then
    body_until = ends_at
    local expires = tonumber(ARGV[10])
    if expires then body_until = math.min(ends_at, m + expires - up.now) end
    if body_until > m then
      redis.call('HSET', KEYS[4], 'state', 'd', 'body', ARGV[9], 'body_until', body_until)
    else
      redis.call('HSET', KEYS[4], 'state', 't')
      redis.call('HDEL', KEYS[4], 'body', 'body_until')
    end
  elseif ours and (verdict == 'u' or got[3] ~= '0' or body_until) then
    -- A record that was only to be sealed anew still has its body.
    local state = body_until and (body_until > m and 'd' or 't') or 'u'
    redis.call('HSET', KEYS[4], 'state', state, 'sticky', '1')
    if state == 't' then redis.call('HDEL', KEYS[4], 'body', 'body_until') end
  elseif ours then
    redis.call('DEL', KEYS[4])
  end
end

return ours and 1 or 0
