//! A view as keys of Redis, and keys of Redis as a view.

use redis::Value;

use crate::scripts::{NOW, TENANT, VERSION, mac_of, micros, nonce, print_of, sealed_by, token_of};
use crate::world::{Kind, Ms, Queued, Record, RecordState, Reply, View, Who};

/// The commands that make these keys, where there were none.
pub fn commands(view: &View) -> Vec<Vec<Vec<u8>>> {
    let mut commands = vec![
        vec![b"SET".to_vec(), b"upstream".to_vec(), upstream(view), b"PX".to_vec(), TTL.to_vec()],
        vec![b"SET".to_vec(), b"tenant".to_vec(), tenant(view), b"PX".to_vec(), TTL.to_vec()],
    ];
    let mut put = |command: &str, key: &str, rest: Vec<Vec<u8>>| {
        if !rest.is_empty() {
            let head = [command.into(), key.into()];
            commands.push(head.into_iter().chain(rest).collect());
            commands.push(vec![b"PEXPIRE".to_vec(), key.into(), TTL.to_vec()]);
        }
    };
    let flights = view.flights.iter();
    put("ZADD", "flights", flights.flat_map(|(who, end)| [at(*end), nonce(*who).into()]).collect());
    let arrivals = view.queue.iter().zip(1..);
    let arrivals =
        arrivals.flat_map(|(queued, place): (_, u32)| [place.to_string().into(), member(*queued)]);
    put("ZADD", "queue", arrivals.collect());
    let drops = view.queue.iter().flat_map(|queued| [at(queued.dropped), member(*queued)]);
    put("ZADD", "drops", drops.collect());
    let starts = view.tags.1.iter().flat_map(|tag| [TENANT.into(), tag.to_string().into()]);
    put("HSET", "starts", starts.collect());
    put("HSET", "record", view.record.as_ref().map(record).unwrap_or_default());
    commands
}

/// The first half of a step of the harness: the commands that make the state.
pub fn framed(lot: &mut Vec<u8>, restore: &[Vec<Vec<u8>>]) {
    number(lot, restore.len());
    for command in restore {
        words(lot, command);
    }
}

/// The second half: a script and its arguments.
pub fn framed_call(script: &str, args: &[Vec<u8>]) -> Vec<u8> {
    let mut call = Vec::new();
    words(&mut call, &[script.into()]);
    words(&mut call, args);
    call
}

fn words(lot: &mut Vec<u8>, words: &[Vec<u8>]) {
    number(lot, words.len());
    for word in words {
        number(lot, word.len());
        lot.extend(word);
    }
}

fn number(lot: &mut Vec<u8>, number: usize) {
    lot.extend(u32::try_from(number).unwrap().to_le_bytes());
}

fn packed(figures: &[f64]) -> Vec<u8> {
    figures.iter().flat_map(|figure| figure.to_le_bytes()).collect()
}

fn upstream(view: &View) -> Vec<u8> {
    let level = view.budget as f64 / 1e3;
    let (phi, factor, halved, promised) = (0.0, 1.0, -1e7, 0.0);
    let (served, arrivals) = (view.tags.0 as f64, view.queue.len() as f64);
    let keep = NOW + micros(view.ends().max().unwrap_or(0));
    let figures = [NOW, NOW, level, phi, factor, halved, keep, promised, served, arrivals];
    [vec![LAYOUT], packed(&figures)].concat()
}

fn tenant(view: &View) -> Vec<u8> {
    let (share, share_phi, promised, flights_promised) = (0.0, 0.0, 0.0, 0.0);
    let figures = [
        view.ceiling as f64 / 1e3,
        NOW,
        share,
        share_phi,
        promised,
        flights_promised,
        view.queued as f64,
    ];
    [vec![LAYOUT], packed(&figures)].concat()
}

fn record(record: &Record) -> Vec<Vec<u8>> {
    let state = match record.state {
        RecordState::InFlight => "in_flight",
        RecordState::Done => "done",
        RecordState::Tombstone => "tombstone",
        RecordState::Uncertain => "uncertain",
    };
    let times = packed(&[
        NOW + micros(record.lease),
        NOW + micros(record.until),
        record.body_until.map_or(-1.0, |until| NOW + micros(until)),
    ]);
    let times = [vec![LAYOUT], times].concat();
    let mut fields: Vec<(&str, Vec<u8>)> = vec![
        ("state", state.into()),
        ("version", VERSION.into()),
        ("print", print_of(record.content).into()),
        ("token", token_of(record.content).into()),
        ("mac", mac_of(record.content).into()),
        ("sticky", if record.sticky { "1" } else { "0" }.into()),
        ("times", times),
    ];
    fields.extend(record.holder.map(|who| ("nonce", nonce(who).into())));
    fields.extend(record.body.map(|who| ("body", sealed_by(who).into())));
    fields.into_iter().flat_map(|(field, value)| [field.into(), value]).collect()
}

fn member(queued: Queued) -> Vec<u8> {
    let kind = match queued.kind {
        Kind::Call => "call",
        Kind::Attempt => "attempt",
    };
    format!("{}/{kind}/{TENANT}", nonce(queued.who)).into()
}

fn at(ms: Ms) -> Vec<u8> {
    format!("{:.0}", NOW + micros(ms)).into()
}

/// What a step of the harness answered: the keys, and the script's reply.
pub fn read(reply: Value) -> (View, Reply) {
    let unreadable = |why: String| (View::default(), Reply::Broken(why));
    let parts = match reply {
        Value::Array(parts) => parts,
        other => return unreadable(format!("{other:?}")),
    };
    match view(&parts[1..]) {
        Some(view) => {
            let reply = self::reply(&parts[0])
                .unwrap_or_else(|| Reply::Broken(format!("the script answers {:?}", parts[0])));
            let outlived = outlived(&view, &parts[8..]);
            (view, outlived.map_or(reply, Reply::Broken))
        }
        None => unreadable("what stands in the store has no form that a gateway writes".into()),
    }
}

/// A key that ends before what it holds.
fn outlived(view: &View, ttls: &[Value]) -> Option<String> {
    let flights = view.flights.iter().map(|(_, end)| *end).max().unwrap_or(0);
    let record = view.record.map_or(0, |record| record.until);
    let all = view.ends().max().unwrap_or(0);
    for ((key, end), ttl) in
        [("upstream", all), ("flights", flights), ("record", record)].iter().zip(ttls)
    {
        let ttl = whole(ttl)?;
        if *end > 0 && ttl < i64::from(*end) {
            return Some(format!("the key {key} ends in {ttl} ms, and what it holds in {end} ms"));
        }
    }
    None
}

fn reply(value: &Value) -> Option<Reply> {
    if let Value::Int(closed) = value {
        return Some(Reply::Settled(*closed == 1));
    }
    let (word, rest) = until_nul(bytes(value)?)?;
    // Past the levels, and the limit that was let through.
    let (_, rest) = until_nul(rest.get(4 * 8..)?)?;
    let figure = |index: usize| doubles(rest).get(index).copied();
    let text = |offset| Some(until_nul(rest.get(offset..)?)?.0);
    Some(match word {
        b"granted" => Reply::Granted {
            sticky: figure(1)? == 1.0,
            token: number_after(text(3 * 8)?, "token-of-")?,
        },
        b"replay" => Reply::Replay(number_after(rest, "sealed-by-")?),
        b"mismatch" => Reply::Mismatch(number_after(text(text(0)?.len() + 1)?, "print-of-")?),
        b"busy" => Reply::Busy((figure(0)? / 1e3) as Ms),
        b"tombstone" => Reply::Tombstone,
        b"lost" => Reply::Lost,
        b"refused" => Reply::Refused,
        b"ask_again" => Reply::AskAgain((figure(0)? * 1e3).round() as Ms),
        _ => return None,
    })
}

fn until_nul(packed: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = packed.iter().position(|byte| *byte == 0)?;
    Some((&packed[..end], &packed[end + 1..]))
}

fn view(parts: &[Value]) -> Option<View> {
    let upstream = bytes(&parts[0])?;
    let tenant = bytes(&parts[1])?;
    if upstream[0] != LAYOUT || tenant[0] != LAYOUT {
        return None;
    }
    let (upstream, tenant) = (doubles(&upstream[1..]), doubles(&tenant[1..]));
    let mut flights = pairs(&parts[2])?
        .map(|(nonce, end)| Some((who(nonce)?, from_score(end)?)))
        .collect::<Option<Vec<_>>>()?;
    flights.sort_unstable();
    let drops: Vec<_> = pairs(&parts[4])?.collect();
    let waiting = list(&parts[3])?.iter().map(|name| {
        let name = bytes(name)?;
        let (_, dropped) = drops.iter().find(|(dropped, _)| *dropped == name)?;
        let kind = match name.get(32..)? {
            b"/call/acme" => Kind::Call,
            b"/attempt/acme" => Kind::Attempt,
            _ => return None,
        };
        Some(Queued { who: who(&name[..32])?, kind, dropped: from_score(dropped)? })
    });
    let queue = waiting.collect::<Option<Vec<_>>>()?;
    if drops.len() != queue.len() {
        return None;
    }
    let start = pairs(&parts[5])?.next().and_then(|(_, tag)| text(tag)?.parse().ok());
    let tags = if queue.is_empty() { (0, None) } else { (upstream[8] as i64, start) };
    Some(View {
        record: match list(&parts[6])? {
            [] => None,
            _ => Some(read_record(&parts[6])?),
        },
        flights,
        queue,
        tags,
        queued: tenant[6] as i64,
        ceiling: thousandths(tenant[0]),
        budget: thousandths(upstream[2]),
    })
}

fn read_record(value: &Value) -> Option<Record> {
    let fields: Vec<_> = pairs(value)?.collect();
    let field = |name: &str| fields.iter().find(|(field, _)| *field == name.as_bytes());
    let get = |name: &str| field(name).map(|(_, value)| *value);
    let times = get("times")?;
    if times.first() != Some(&LAYOUT) {
        return None;
    }
    let times = doubles(&times[1..]);
    let [lease, until, body_until] = times[..] else { return None };
    let state = match get("state")? {
        b"in_flight" => RecordState::InFlight,
        b"done" => RecordState::Done,
        b"tombstone" => RecordState::Tombstone,
        b"uncertain" => RecordState::Uncertain,
        _ => return None,
    };
    let content = number_after(get("print")?, "print-of-")?;
    let is_of_one_call = number_after(get("token")?, "token-of-")? == content
        && number_after(get("mac")?, "mac-of-")? == content;
    if !is_of_one_call {
        return None;
    }
    let holder = if state == RecordState::InFlight { Some(who(get("nonce")?)?) } else { None };
    Some(Record {
        state,
        holder,
        content,
        sticky: get("sticky")? == b"1",
        lease: if state == RecordState::InFlight { from_now(lease) } else { 0 },
        until: from_now(until),
        body_until: if body_until < 0.0 { None } else { Some(from_now(body_until)) },
        body: match get("body") {
            Some(body) => Some(number_after(body, "sealed-by-")?),
            None => None,
        },
    })
}

fn thousandths(level: f64) -> i64 {
    (level * 1e3).round() as i64
}

fn from_now(us: f64) -> Ms {
    (((us - NOW) / 1e3).round() as Ms).max(0)
}

fn from_score(score: &[u8]) -> Option<Ms> {
    Some(from_now(text(score)?.parse().ok()?))
}

fn who(nonce: &[u8]) -> Option<Who> {
    u8::from_str_radix(text(nonce)?.trim_start_matches('0'), 16)
        .ok()?
        .checked_sub(1)
}

fn number_after(bytes: &[u8], head: &str) -> Option<u8> {
    text(bytes)?.strip_prefix(head)?.parse().ok()
}

fn doubles(bytes: &[u8]) -> Vec<f64> {
    bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|bytes| f64::from_le_bytes(*bytes))
        .collect()
}

fn list(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(list) => Some(list),
        _ => None,
    }
}

fn pairs(value: &Value) -> Option<impl Iterator<Item = (&[u8], &[u8])>> {
    let pairs = list(value)?.as_chunks::<2>().0;
    Some(pairs.iter().filter_map(|[name, value]| Some((bytes(name)?, bytes(value)?))))
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Int(whole) => Some(*whole),
        _ => None,
    }
}

/// The layout of packed values that the explorer writes and reads.
const LAYOUT: u8 = 1;

/// Longer than anything that is kept.
const TTL: &[u8] = b"600000";
