-- Stands between common.lua and admit.lua: reads an upstream's queue, and a call's turn in it.
--
-- A tenant's k-th waiting call (k = 0, 1, ...) has the tag base + k. The base is the tag after its
-- last start, and at least the largest tag that has started. A `committed` call waits for no other
-- call and has no tag.

-- The length of a nonce in a member.
local NONCE = 32

-- The possible members for a call's place.
local function own_names(nonce, tenant_name, is_attempt)
  if is_attempt then return { [member(nonce, 'attempt', tenant_name)] = 'attempt' } end
  local names = {}
  for _, kind in ipairs({ 'call', 'committed', 'rate', 'in_flight' }) do
    names[member(nonce, kind, tenant_name)] = kind
  end
  return names
end

-- Counts the ends of members, which are the kind and the tenant. Returns by tenant how many have a
-- tag, and how many of this tenant's have paid at its ceiling.
local function by_tenant(endings, tenant_name)
  local spare, paid = {}, 0
  for ending, count in pairs(endings) do
    local kind, owner = ending:match('^/([^/]*)/(.*)$')
    if kind and kind ~= 'committed' then spare[owner] = (spare[owner] or 0) + count end
    local has_paid = kind == 'call' or kind == 'committed'
    if has_paid and owner == tenant_name then paid = paid + count end
  end
  return spare, paid
end

-- Returns the calls that wait, without those that have not asked again in time:
--   waiting     how many
--   paid        how many of the tenant's have paid at its ceiling
--   kind        the call's own, if it waits already
--   tag, ahead  the call's turn, and how many start before it: in its place, or in the one that it
--               would get
--   gone        the members to remove
--   is_foreign  something else stands under the keys
local function read_queue(nonce, tenant_name, is_attempt, m, served)
  local members = try('ZRANGE', KEYS[4], 0, -1)
  local gone = try('ZRANGEBYSCORE', KEYS[5], '-inf', m)
  local starts = try('HGETALL', KEYS[6])
  if members.err or gone.err or starts.err then
    return { waiting = 0, paid = 0, tag = 0, ahead = 0, gone = {}, is_foreign = true }
  end
  local is_gone, last_start = {}, {}
  for _, name in ipairs(gone) do is_gone[name] = true end
  for i = 1, #starts, 2 do last_start[starts[i]] = tonumber(starts[i + 1]) end

  local own = own_names(nonce, tenant_name, is_attempt)
  local waiting, kind, endings, before = 0, nil, {}, nil
  for _, name in ipairs(members) do
    if not is_gone[name] then
      if own[name] then
        kind, before = own[name], {}
        for ending, count in pairs(endings) do before[ending] = count end
      end
      local ending = name:sub(NONCE + 1)
      waiting, endings[ending] = waiting + 1, (endings[ending] or 0) + 1
    end
  end
  local all, paid = by_tenant(endings, tenant_name)
  local first = before and by_tenant(before, tenant_name) or all

  local function base_of(owner) return max(served, (last_start[owner] or -1) + 1) end
  local has_tag = kind and kind ~= 'committed'
  local tag = base_of(tenant_name) + ((has_tag and first or all)[tenant_name] or 0)
  -- Those with a smaller tag; of the others, also that with the same one, if it came first.
  local ahead = 0
  for owner, count in pairs(all) do
    local smaller = tag - base_of(owner)
    if smaller > 0 then ahead = ahead + min(smaller, count) end
    local came_first = owner ~= tenant_name and smaller >= 0 and (first[owner] or 0) > smaller
    if came_first then ahead = ahead + 1 end
  end
  return { waiting = waiting, paid = paid, kind = kind, tag = tag, ahead = ahead, gone = gone }
end

