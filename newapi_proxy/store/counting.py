"""The counting of `windows.Memory` as it runs inside Redis: one script a step, so that no two processes meet.

A window is a sorted set of entries by the moment they leave, and a hash of their amounts; an entry's name begins with
the moment at which the first of what it counts would leave. Slots are a sorted set of grants by the end of their
lease. Moments are Redis's own clock in microseconds.
"""

from __future__ import annotations

from typing import Final

_BEGIN: Final = """
if redis.replicate_commands then redis.replicate_commands() end
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local prefix = ARGV[1]
"""

# ARGV: prefix, the grant's name, seconds of a slot's lease, entries that are kept apart, the ceilings as JSON:
# [id, slots or -1, [[name, seconds, most, amount], ...]]. Answers {1, entry, ...} in their order, or
# {0, place of the ceiling, limit, microseconds to wait or -1 for ever}.
TAKE: Final = (
    _BEGIN
    + """
local grant, lease, exact, wanted = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), cjson.decode(ARGV[5])

local function forget(window)
  local gone = redis.call('ZRANGEBYSCORE', window, '-inf', now)
  if #gone == 0 then return end
  local sum = 0
  for _, entry in ipairs(gone) do
    sum = sum + (tonumber(redis.call('HGET', window .. ':n', entry)) or 0)
    redis.call('HDEL', window .. ':n', entry)
  end
  redis.call('ZREMRANGEBYSCORE', window, '-inf', now)
  redis.call('HINCRBY', window .. ':n', 'total', -sum)
end

local function wait(window, most, amount)
  forget(window)
  local over = (tonumber(redis.call('HGET', window .. ':n', 'total')) or 0) + amount - most
  if over <= 0 then return 0 end
  if amount > most then return -1 end
  local entries = redis.call('ZRANGE', window, 0, -1, 'WITHSCORES')
  for at = 1, #entries, 2 do
    over = over - (tonumber(redis.call('HGET', window .. ':n', entries[at])) or 0)
    if over <= 0 then return tonumber(entries[at + 1]) - now end
  end
  return -1
end

local function longer(one, other)
  if other < 0 then return false end
  return one < 0 or one > other
end

local function add(window, length, amount)
  local leaves = now + length
  local last = redis.call('ZRANGE', window, -1, -1, 'WITHSCORES')
  local entry = string.format('%.0f', leaves) .. '-' .. grant
  if last[1] then
    local began = tonumber(string.match(last[1], '^%d+'))
    local close = redis.call('ZCARD', window) >= exact and leaves - began <= length / exact
    if close or tonumber(last[2]) == leaves then entry = last[1] end
  end
  redis.call('ZADD', window, leaves, entry)
  redis.call('HINCRBY', window .. ':n', entry, amount)
  redis.call('HINCRBY', window .. ':n', 'total', amount)
  redis.call('PEXPIRE', window, math.ceil(length / 1000) + 1000)
  redis.call('PEXPIRE', window .. ':n', math.ceil(length / 1000) + 1000)
  return entry
end

local full, limit, longest = 0, '', 0
for place, one in ipairs(wanted) do
  if one[2] >= 0 then
    local slots = prefix .. one[1] .. ':slots'
    redis.call('ZREMRANGEBYSCORE', slots, '-inf', now)
    if redis.call('ZCARD', slots) >= one[2] and longer(1000000, longest) then
      full, limit, longest = place, 'concurrency', 1000000
    end
  end
  for _, rate in ipairs(one[3]) do
    local needed = wait(prefix .. one[1] .. ':' .. rate[1], rate[3], rate[4])
    if needed ~= 0 and longer(needed, longest) then full, limit, longest = place, rate[1], needed end
  end
end
if full > 0 then return {0, full - 1, limit, longest} end

local taken = {1}
for _, one in ipairs(wanted) do
  if one[2] >= 0 then
    local slots = prefix .. one[1] .. ':slots'
    redis.call('ZADD', slots, now + lease * 1000000, grant)
    redis.call('EXPIRE', slots, lease + 1)
  end
  for _, rate in ipairs(one[3]) do
    taken[#taken + 1] = add(prefix .. one[1] .. ':' .. rate[1], rate[2] * 1000000, rate[4])
  end
end
return taken
"""
)

# ARGV: prefix, seconds of a slot's lease, steps as JSON: ["keep", id, grant], ["free", id, grant],
# ["change", id, limit, entry, by]. What has left its window is not counted again.
GIVE: Final = (
    _BEGIN
    + """
local lease, steps = tonumber(ARGV[2]), cjson.decode(ARGV[3])
for _, step in ipairs(steps) do
  local key = prefix .. step[2]
  if step[1] == 'keep' then
    redis.call('ZADD', key .. ':slots', now + lease * 1000000, step[3])
    redis.call('EXPIRE', key .. ':slots', lease + 1)
  elseif step[1] == 'free' then
    redis.call('ZREM', key .. ':slots', step[3])
  else
    local window = key .. ':' .. step[3]
    local leaves = redis.call('ZSCORE', window, step[4])
    if leaves and tonumber(leaves) > now then
      redis.call('HINCRBY', window .. ':n', step[4], step[5])
      redis.call('HINCRBY', window .. ':n', 'total', step[5])
    end
  end
end
return #steps
"""
)
