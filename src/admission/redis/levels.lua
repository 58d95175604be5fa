-- Reads an upstream's levels, and those of some tenants on it; writes nothing: see
-- `RedisStore::levels`.
--
-- KEYS  1 the upstream, 2 the queue, 3 when each is dropped: as of admit.lua
--       then, for each tenant: its levels, its calls in flight
-- ARGV  1 figures of the upstream, packed doubles in the order in which they are unpacked below
--       2 figures of the tenants, likewise, one after another
--       3 and on: the tenants
-- Reply packed doubles: Redis TIME in us, level, factor, how many wait; then, for each tenant:
--       level, committed share, calls in flight, how many wait

local clock, -- in tests; else -1: TIME
  rate, burst
  = struct.unpack('<ddd', ARGV[1])

-- MGET returns nil for a key of another type.
local up = advance(redis.call('MGET', KEYS[1])[1], clock, rate, burst, -1)
local m = up.m

-- A queued call that has not asked again in time no longer waits.
local waiting, of_tenant = 0, {}
local members, gone = try('ZRANGE', KEYS[2], 0, -1), try('ZRANGEBYSCORE', KEYS[3], '-inf', m)
if not members.err and not gone.err then
  local is_gone = {}
  for _, name in ipairs(gone) do is_gone[name] = true end
  for _, name in ipairs(members) do
    if not is_gone[name] then
      local owner = name:match('^[^/]*/[^/]*/(.*)$') or ''
      waiting, of_tenant[owner] = waiting + 1, (of_tenant[owner] or 0) + 1
    end
  end
end

local parts = { struct.pack('<dddd', up.now, up.level, up.factor, waiting) }
local at = 1
for i = 3, #ARGV do
  local tenant_rate, tenant_burst, committed, share_burst
  tenant_rate, tenant_burst, committed, share_burst, at = struct.unpack('<dddd', ARGV[2], at)
  local levels_key, flights_key = KEYS[2 * i - 2], KEYS[2 * i - 1]
  local tenant = read_tenant(redis.call('MGET', levels_key)[1])
  local level, share = tenant_burst, share_burst
  if tenant then
    local refilled = tenant.level + tenant_rate * max(0, m - tenant.at) / 1e6
    level = max(-1, min(tenant_burst, refilled))
    share = min(share_burst, tenant.share + committed * max(0, up.phi - tenant.share_phi))
  end
  local flying = try('ZCOUNT', flights_key, '(' .. int(m), m + MAX_LEASE)
  if type(flying) == 'table' then flying = 0 end
  parts[#parts + 1] = struct.pack('<dddd', level, share, flying, of_tenant[ARGV[i]] or 0)
end
return table.concat(parts)
