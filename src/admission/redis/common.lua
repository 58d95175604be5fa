-- Goes in front of both scripts: one upstream's clock, factor and budget, brought up to date.
--
-- Every time is in microseconds of the upstream's own clock m, but for `now` and `last`, which are Redis TIME.
-- Numbers that become part of a text go through int(): `..` and tostring() round to 14 digits.

local TOLERANCE = 1e-6
local MAX_LEASE = 3600e6
local MINUTE = 60e6
local FOREVER = 365 * 86400e6

local function int(n) return string.format('%.0f', n) end
local function text(n) return string.format('%.17g', n) end

local function number(text, default)
  local n = tonumber(text)
  if n and n > -1e18 and n < 1e18 then return n end
  return default
end

-- The fields of a hash. What is not a hash counts as lost, and is removed by the write that replaces it.
local function fields(key, ...)
  local got = redis.pcall('HMGET', key, ...)
  if got.err then return {}, true end
  return got, false
end

-- A lease in the far future is a clock's doing: m starts anew where the upstream's hash was lost.
local function runs(lease, m) return lease > m and lease <= m + MAX_LEASE end

-- Time goes forward by what Redis TIME went forward, and stands still where that steps back. f recovers by 1/16 a
-- second; phi, the integral of f over m, is what levels refill with, so that a long gap is not refilled at today's f.
local function advance(key, clock, rate, burst, throttled)
  local now = tonumber(clock)
  if not now then
    local time = redis.call('TIME')
    now = time[1] * 1e6 + time[2]
  end
  local got, foreign = fields(key, 'm', 'last', 'level', 'phi', 'factor', 'halved', 'tail', 'keep')
  local before = number(got[1], now)
  local m = before + math.max(0, now - number(got[2], now))
  local dt = (m - before) / 1e6
  local f = math.max(1 / 16, math.min(1, number(got[5], 1)))
  local rising = math.min(dt, (1 - f) * 16)
  local dphi = f * rising + rising * rising / 32 + (dt - rising)
  local up = {
    key = key,
    foreign = foreign,
    now = now,
    m = m,
    level = math.max(-1, math.min(burst, number(got[3], burst) + rate * dphi)),
    phi = number(got[4], 0) + dphi,
    factor = math.min(1, f + rising / 16),
    halved = number(got[6], -1e7),
    tail = number(got[7], 0),
    keep = number(got[8], 0),
  }
  if throttled >= 0 and throttled > up.halved and m - up.halved >= 1e6 then
    up.factor = math.max(1 / 16, up.factor / 2)
    up.halved = m
  end
  return up
end

-- The first write of a script, always: one that frees memory first would escape maxmemory.
-- The hash outlives everything that is measured in its m.
local function store(up, life)
  up.keep = math.max(up.keep, up.m + math.min(math.max(life, MINUTE), FOREVER))
  if up.foreign then redis.call('DEL', up.key) end
  redis.call('HSET', up.key, 'm', up.m, 'last', up.now, 'level', up.level, 'phi', up.phi, 'factor', up.factor,
    'halved', up.halved, 'tail', up.tail, 'keep', up.keep)
  redis.call('PEXPIRE', up.key, int((up.keep - up.m) / 1e3 + 1))
end

-- How long a bucket takes to fill, in microseconds.
local function refill(size, rate)
  if rate > 0 then return math.min(size / rate * 1e6, FOREVER) end
  return FOREVER
end
