-- transition.lua: what pwf_core/transition.py says, done inside Redis.
--
-- See request.lua for KEYS, ARGV and how runs are stored.
-- Functions stand in the order of the reference and carry its names. Nothing here writes: what a
-- command changes, it changes in tables, and notes for `flush`.
--
-- Here are those that most exchanges need. The others are in `joining` (joins.lua) and `rare` (rare.lua),
-- which make them when the first of theirs is called: to make all took as long as half a dozen commands.

local joining, rare = {}, {}

--== effects ====================================================================================

local function name_of(run, call_id, call)
  local name = call[C_NAME]
  if not name then
    name = run.id .. ':' .. call_id .. ':' .. service_of(call[C_ADDRESS])
    call[C_NAME] = name
  end
  return name
end

local function set_run_timer(run, due)
  header(run)[H_DUE] = due or 0
  run.write = true
  timers[run.id .. '::'] = due
end

local function reason_of(run)
  return get(run, 'y') or ''
end

local function end_run(run)
  local result, reason = get(run, 'r::0'), reason_of(run)
  ends[#ends + 1] = {
    run.id,
    struct.pack('>BBI4', header(run)[H_STATUS], result and 1 or 0, #reason) .. reason .. (result or ''),
  }
end

local function delete_run(run)
  local key = get(run, 'k')
  if key then old_keys[#old_keys + 1] = key end
  run.deleted = true
  runs[run.id] = false
end

---- the life of a call -------------------------------------------------------------------------

local function wait(run, call_id, call, phase, delay_ms)
  call[C_PHASE] = phase
  call[C_DUE] = now + delay_ms
  if phase ~= LEASED then call[C_CLAIM] = '' end
  call[C_WRITE] = true
  timers[name_of(run, call_id, call)] = call[C_DUE]
end

local function enqueue(run, call_id, call)
  if paired then
    wait(run, call_id, call, OUTBOX, OUTBOX_MS)
  else
    if call[C_DUE] ~= 0 then timers[name_of(run, call_id, call)] = false end
    call[C_PHASE] = QUEUED
    call[C_DUE] = 0
    call[C_CLAIM] = ''
    call[C_WRITE] = true
  end
  send(run.id, call_id, call[C_GENERATION], call[C_ADDRESS])
end

local function schedule(run, call_id, call, delay_ms, phase)
  if delay_ms > 0 then
    wait(run, call_id, call, phase, delay_ms)
    await(call[C_DUE], call[C_ADDRESS])
  else
    enqueue(run, call_id, call)
  end
end

local function enter(run, scope, size)
  if scope == '' then
    count(run, H_PENDING, size)
  else
    local record = get_scope(run, scope)
    record[S_PENDING] = record[S_PENDING] + size
    record[S_WRITE] = true
  end
end

-- Put a large body where it is written once; return what is to stand in the record.
local function stow(run, call_id, body)
  if #body <= SMALL then return body end
  put(run, 'b:' .. call_id, body)
  return false
end

-- body: false if it is in a field of its own.
-- counted: whether its scope and its run know of it already.
local function add(run, call_id, address, body, delay_ms, at_ms, scope, member, joined, gathered, counted)
  local call = {
    true, false, QUEUED, 0, 0, 0, 0, '', address, scope, member, gathered, joined, 0, 0, body, 0,
  }
  run.calls[call_id] = call
  if not counted then
    count(run, H_LIVE, 1)
    enter(run, scope, 1)
  end
  if at_ms > 0 then delay_ms = math.max(at_ms - now, 0) end
  schedule(run, call_id, call, delay_ms, TIMED)
end

-- new: { call id, address, body, delay_ms, due_ms } from 2 on
local function add_new(run, new, scope, member)
  local body = stow(run, new[2], ARGV[new[4]])
  add(run, new[2], new[3], body, new[5], new[6], scope, member, NONE, -1)
end

local function claimed(run, call_id, claim_id)
  local call = get_call(run, call_id)
  if not call then return nil, ENDED end
  if call[C_PHASE] ~= LEASED or call[C_CLAIM] ~= claim_id then return nil, LOST end
  return call
end

-- Append what a worker is to know of a call to a list, and return that: run id, call id, generation,
-- address, body, attempts, lost, events or false, results or false, uncollected. Events alternate names
-- and payloads; a member without a result has false.
local function grant(run, call_id, call, grants)
  local events, results, uncollected = false, false, 0
  if #call[C_JOINED] > 0 then
    local fields = {}
    for number, event in ipairs(call[C_JOINED]) do fields[number] = 'e:' .. event end
    prepare(run, fields)
    events = {}
    for number, event in ipairs(call[C_JOINED]) do
      events[2 * number - 1], events[2 * number] = event, get(run, fields[number])
    end
  end
  if call[C_GATHERED] > BROUGHT then
    uncollected = call[C_GATHERED]
  elseif call[C_GATHERED] >= 0 then
    local fields = {}
    for number = 1, call[C_GATHERED] do fields[number] = 'r:' .. call_id .. ':' .. digits[number - 1] end
    prepare(run, fields)
    results = {}
    for number, field in ipairs(fields) do results[number] = get(run, field) end
  end
  local size = #grants
  grants[size + 1], grants[size + 2], grants[size + 3] = run.id, call_id, call[C_GENERATION]
  grants[size + 4], grants[size + 5] = call[C_ADDRESS], call[C_BODY] or get(run, 'b:' .. call_id)
  grants[size + 6], grants[size + 7], grants[size + 8] = call[C_ATTEMPTS], call[C_LOST], events
  grants[size + 9], grants[size + 10] = results, uncollected
  return grants
end

--== the end of a call, and of a run =============================================================

local function leave(run, scope)
  while scope ~= '' do
    local record = get_scope(run, scope)
    record[S_PENDING] = record[S_PENDING] - 1
    record[S_WRITE] = true
    if record[S_PENDING] > 0 then return end
    run.scopes[scope] = nil
    put(run, 's:' .. scope, false)
    if record[S_LOST] then
      if not record[M_BODY] then put(run, 'b:' .. scope, false) end
      joining.forget(run, scope, record[M_ADDRESS], record[S_SIZE])
    else
      joining.make(run, scope, record, NONE, record[S_SIZE])
    end
    scope = record[M_SCOPE]  -- the gather's own place, after its call has taken one
  end
  count(run, H_PENDING, -1)
end

local function remove(run, call_id, call)
  run.calls[call_id] = false
  local gone = run.gone
  if gone then gone[#gone + 1] = 'c:' .. call_id else run.gone = { 'c:' .. call_id } end
  if not call[C_BODY] then put(run, 'b:' .. call_id, false) end
  if call[C_REASON] == 1 then put(run, 'y:' .. call_id, false) end
  ended_address, ended_id = call[C_ADDRESS], call_id
  count(run, H_LIVE, -1)
  if call[C_DUE] ~= 0 then timers[name_of(run, call_id, call)] = false end
  if call[C_CHUNKS] > 0 then rare.unstage(run, call_id, call) end
  if call[C_GATHERED] > 0 then joining.forget(run, call_id, call[C_ADDRESS], call[C_GATHERED]) end
  leave(run, call[C_SCOPE])
end

-- Have nothing fire that is left to do of calls of a run that goes.
local function drop_rests(run)
  for _, name in ipairs(header(run)[H_RESTS]) do timers[run.id .. ':' .. name] = false end
  run.h[H_RESTS] = {}
end

-- Forget the events of a run that is over. Nothing else is left in it but the fields named here, so
-- the whole hash goes in one stroke, and a small one takes its place.
local function clear(run)
  header(run)[H_EVENTS] = 0
  local has, out = {}, {}
  for _, field in ipairs({ 'k', 'y', 'r::0' }) do
    has[field] = run.has[field]
    if has[field] then out[field] = true end
  end
  run.has, run.out, run.calls, run.scopes, run.gone = has, out, {}, NONE, nil
  run.write, run.was, run.wiped = true, nil, true
end

-- Say how the run ended, and have what is left of it deleted in time.
local function finish(run)
  local h = header(run)
  prepare(run, { 'k', 'y', 'r::0' })
  end_run(run)
  local keep_ms = dead_retention_ms
  if h[H_PENDING] == 0 then
    drop_rests(run)
    clear(run)
    keep_ms = retention_ms
    if keep_ms == 0 then
      if h[H_DUE] ~= 0 then timers[run.id .. '::'] = false end
      delete_run(run)
      return
    end
  end
  set_run_timer(run, now + keep_ms)
end

local function conclude(run)
  local h = header(run)
  local before, pending = h[H_STATUS], h[H_PENDING] > 0
  local status
  if not pending then
    status = h[H_DROPPED] > 0 and FAILED or FINISHED
  elseif h[H_LIVE] > 0 then
    status = RUNNING
  elseif h[H_TIMED] > 0 then
    status = WAITING
  elseif h[H_DEAD] > 0 or h[H_DROPPED] > 0 then
    status = FAILED
  else
    status = h[H_EXTERNAL] > 0 and WAITING or STALLED
  end
  if status == before and pending then return end
  if status == STALLED then
    local words = 'the last call to end was %s (%s).'
    rare.set_reason(run, ended_id and string.format(words, ended_address, ended_id) or '')
  elseif before == STALLED then
    rare.set_reason(run, '')
  end
  h[H_STATUS] = status
  run.write = true
  if status ~= RUNNING and status ~= WAITING then
    finish(run)
  elseif h[H_DUE] ~= 0 then
    set_run_timer(run, false)
  end
end

---- commands ------------------------------------------------------------------------------------

local act = {}              -- kind of a command -> what it does; `rare` has the others
local has_rested            -- whether a rest was moved on: enough for one sweep

-- Grant the call, and return `grants`; or say why not.
local function claim(run, call_id, generation, claim_id, lease_ms, suspects, grants)
  local call = get_call(run, call_id)
  if not call then return ENDED end
  local leased = call[C_PHASE] == LEASED
  if leased and call[C_CLAIM] == claim_id then return grant(run, call_id, call, grants) end
  if generation < call[C_GENERATION] then return STALE end
  if generation > call[C_GENERATION] then
    -- The store went back in time: it has forgotten what made this copy. Adopt it.
    call[C_GENERATION] = generation
    if call[C_PHASE] == DEAD then
      rare.revive(run, call_id, call)
      conclude(run)
    end
  elseif leased then
    return BUSY
  elseif call[C_PHASE] ~= QUEUED and call[C_PHASE] ~= OUTBOX then
    return STALE
  end
  if call[C_LOST] >= SUSPECT_LOST and not suspects then
    call[C_GENERATION] = call[C_GENERATION] + 1
    wait(run, call_id, call, TIMED, DEFER_MS)
    return DEFERRED
  end
  call[C_CLAIM] = claim_id
  call[C_UNCLAIMED] = 0
  if call[C_CHUNKS] > 0 then rare.unstage(run, call_id, call) end
  call[C_ATTEMPTS] = call[C_ATTEMPTS] + 1
  wait(run, call_id, call, LEASED, lease_ms)
  return grant(run, call_id, call, grants)
end

-- CLAIM, run id, call id, generation, claim id, lease_ms, suspects
act[CLAIM] = function(run, command)
  return claim(run, command[4], command[5], command[6], command[7], command[8], {})
end

-- RENEW, run id, call id, claim id, lease_ms
act[RENEW] = function(run, command)
  local call, problem = claimed(run, command[4], command[5])
  if not call then return problem end
  wait(run, command[4], call, LEASED, command[6])
  return DONE
end

-- COMMIT, run id, call id, claim id, result, counts of emits, joins, gathers and calls; then
--   emits     event, payload
--   joins     see add_join
--   gathers   see add_gather; then the members, like calls
--   calls     call id, address, body, delay_ms, due_ms
-- Those lists become [1], { emits, joins, gathers, members of each, calls }; false if all are empty.
-- The result is a number of ARGV, or 0; or { that, chunks, staged } for a decision in parts.
act[COMMIT] = function(run, command)
  local call, problem = claimed(run, command[4], command[5])
  if not call then return problem end
  local scope, member, made = call[C_SCOPE], call[C_MEMBER], command[1]
  local result, chunks, staged = command[6], 0, 0
  if type(result) == 'table' then result, chunks, staged = unpack(result) end
  if chunks ~= call[C_CHUNKS] then return LOST end  -- the store has forgotten a part, or never had it
  if result > 0 then
    local field = 'r:' .. scope .. ':' .. digits[member]
    if not get(run, field) then put(run, field, ARGV[result]) end
  end
  if made then
    local emits, joins, gathers, members, calls = unpack(made)
    for number = 1, #emits do joining.emit(run, emits[number][2], ARGV[emits[number][3]]) end
    for number = 1, #joins do joining.add_join(run, joins[number], scope, member) end
    for number = 1, #gathers do joining.add_gather(run, gathers[number], members[number], scope, member) end
    for number = 1, #calls do add_new(run, calls[number], scope, member) end
  end
  if staged > 0 then rare.count_staged(run, scope, staged) end
  call[C_CHUNKS] = 0  -- they are the rest's now
  remove(run, command[4], call)
  if chunks > 0 then
    local rest, gathers = rare.rest_of(run, command[4], call[C_ADDRESS]), {}
    for number, new in ipairs(made and made[3] or NONE) do gathers[number] = new[2] end
    rest[N_SCOPE], rest[N_MEMBER], rest[N_CHUNKS], rest[N_GATHERS] = scope, member, chunks, gathers
  end
  conclude(run)
  return DONE
end

-- SETTLE, run id, call id, generation
act[SETTLE] = function(run, command)
  local call = get_call(run, command[4])
  if not call then return ENDED end
  if call[C_PHASE] ~= OUTBOX or call[C_GENERATION] ~= command[5] then return STALE end
  local delay_ms = UNCLAIMED_MS * 4 ^ math.min(call[C_UNCLAIMED], MOST_UNCLAIMED)
  wait(run, command[4], call, QUEUED, delay_ms)
  return DONE
end

local function apply(command)
  ended_id = nil
  local kind, run_id = command[2], command[3]
  local run = kind == CLAIM and known(run_id) or kind ~= CLAIM and find(run_id)
  if not run then return ENDED end
  return (act[kind] or rare[kind])(run, command)
end
