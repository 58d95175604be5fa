//! What must hold: of each answer, and of what stands in the store after it.
//!
//! The account follows the answers, and knows nothing of how a store decides. What it expects to
//! stand is compared with what does.

use crate::callers::Call;
use crate::names::Names;
use crate::world::{
    Content, Kind, LEASE, Ms, Op, Queued, RESULT, RETENTION, Record, RecordState, Reply, Stage,
    Verdict, View, Who,
};

/// What the answers so far mean.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Account {
    record: Option<Claimed>,
    /// Places in flight, and their ends.
    places: Vec<(Who, Ms)>,
    /// Places in the queue that have paid, and when they are dropped.
    queue: Vec<(Who, Ms)>,
    /// By call: charges at the tenant's ceiling that were not given back.
    charges: [i8; 3],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Claimed {
    content: Content,
    /// Whose claim it is, and the end of its lease.
    owner: Option<(Who, Ms)>,
    /// Something of it may have been executed, and no later claim can undo that.
    sticky: bool,
    until: Ms,
    result: Option<(Who, Ms)>,
}

type Verified = Result<(), String>;

/// An answer to be judged: what was asked, and what stood and stands in the store.
pub struct Answer<'a> {
    pub op: Op,
    pub reply: &'a Reply,
    pub before: &'a View,
    pub after: &'a View,
    /// Every call as it was before, and its content.
    pub calls: &'a [(Call, Content)],
}

impl Account {
    /// Follows one answer.
    pub fn follow(&mut self, answer: &Answer<'_>) -> Verified {
        if let Reply::Broken(why) = answer.reply {
            return Err(why.clone());
        }
        let before = self.clone();
        match answer.op {
            Op::Ask { who, stage, content, distrust } => {
                self.asked(who, stage, content, distrust, answer)?;
            }
            Op::Settle { who, verdict } => self.settled(who, verdict, answer)?,
        }
        if let Some((who, _)) = (1..).zip(self.charges).find(|(_, charges)| *charges < 0) {
            return Err(format!("call {who} is given back more than it has paid"));
        }
        self.level_is_exact(&before, answer)?;
        self.stands(answer.after)
    }

    fn asked(
        &mut self,
        who: Who,
        stage: Stage,
        content: Content,
        distrust: Option<Who>,
        answer: &Answer<'_>,
    ) -> Verified {
        let owner = self.record.and_then(|record| record.owner);
        let is_owner = owner.is_some_and(|(owner, _)| owner == who);
        match answer.reply {
            Reply::Granted { sticky, token } => {
                if *token != content {
                    return Err("the content goes out with another upstream token".into());
                }
                self.granted(who, stage, content, distrust, answer)?;
                let expected = self.record.is_some_and(|record| record.sticky);
                if expected && !sticky {
                    return Err("the grant forgets that the call may have been executed".into());
                }
                if *sticky && !expected {
                    return Err("the grant says that the call may have been executed, and it was \
                                not"
                    .into());
                }
                return Ok(());
            }
            Reply::Busy(_) if is_owner => return Err("a call waits for itself".into()),
            Reply::Busy(left) => {
                if owner.is_none_or(|(_, lease)| lease != *left || lease == 0) {
                    return Err("a call waits, and no lease runs".into());
                }
            }
            Reply::Replay(by) => {
                let live = self.record.and_then(|record| record.result);
                if live.is_none_or(|(of, until)| of != *by || until == 0) {
                    return Err(
                        "a result is repeated that is not the record's, or has ended".into()
                    );
                }
            }
            Reply::Mismatch(of) => {
                if self.record.is_none_or(|record| record.content != *of || *of == content) {
                    return Err("a mismatch without a record of other content".into());
                }
            }
            Reply::Tombstone => {
                let result = self.record.and_then(|record| record.result);
                if result.is_none_or(|(_, until)| until > 0) {
                    return Err("a result is called ended, and it has not ended".into());
                }
                self.record.iter_mut().for_each(|record| record.owner = None);
            }
            Reply::Lost if is_owner => {
                return Err("the owner is told that its claim is lost".into());
            }
            Reply::Lost if stage != Stage::Call => {}
            Reply::Refused => self.left_the_queue(who, stage),
            Reply::AskAgain(_) => self.queued(who, stage, answer),
            other => return Err(format!("{other:?} is no answer to an ask")),
        }
        same_record(answer.before.record, answer.after.record)
            .then_some(())
            .ok_or_else(|| "an ask that was not granted changes the record".into())
    }

    fn granted(
        &mut self,
        who: Who,
        stage: Stage,
        content: Content,
        distrust: Option<Who>,
        answer: &Answer<'_>,
    ) -> Verified {
        let is_other = |(call, of): &(Call, Content)| call.may_be_executed && *of != content;
        if answer.calls.iter().any(is_other) {
            return Err(
                "a grant of other content, while the first one may have been executed".into()
            );
        }
        let standing = self.record;
        let owner = standing.and_then(|record| record.owner);
        let is_owner = owner.is_some_and(|(owner, _)| owner == who);
        if let Some(record) = standing.filter(|_| !is_owner) {
            if record.content != content {
                return Err("a record of other content is taken over".into());
            }
            if owner.is_some_and(|(_, lease)| lease > 0) {
                return Err("a running lease is taken over".into());
            }
            match record.result {
                Some((_, 0)) => return Err("a call whose result has ended runs again".into()),
                Some((by, _)) if distrust != Some(by) => {
                    return Err("a live result is overwritten".into());
                }
                _ => {}
            }
        }
        if stage != Stage::Call && !is_owner {
            return Err("an attempt or a renewal of a call that holds no claim is granted".into());
        }
        let is_running = self.places.iter().any(|(of, _)| *of == who);
        if stage != Stage::Renew {
            self.purge_queue();
        }
        if stage == Stage::Call && !is_owner {
            self.paid(who);
        }
        if stage != Stage::Renew || is_running {
            put(&mut self.places, who, LEASE);
        }
        let attempt_is_uncertain = stage == Stage::Attempt { uncertain: true };
        let record = self.record.get_or_insert(Claimed {
            content,
            owner: None,
            sticky: false,
            until: RETENTION,
            result: None,
        });
        record.sticky |= (standing.is_some() && !is_owner) || attempt_is_uncertain;
        record.owner = Some((who, LEASE));
        record.until = record.until.max(LEASE);
        Ok(())
    }

    fn queued(&mut self, who: Who, stage: Stage, answer: &Answer<'_>) {
        self.purge_queue();
        let is_own = |queued: &&Queued| queued.who == who && queued.kind == Kind::Call;
        let kept = answer.after.queue.iter().find(is_own);
        let dropped = kept.map_or(0, |queued| queued.dropped);
        if stage == Stage::Call {
            self.paid(who);
            put(&mut self.queue, who, dropped);
            put(&mut self.places, who, dropped);
        }
    }

    /// A call that waited in the queue has paid before.
    fn paid(&mut self, who: Who) {
        let was_queued = take(&mut self.queue, who);
        self.charges[usize::from(who)] += i8::from(!was_queued);
    }

    fn left_the_queue(&mut self, who: Who, stage: Stage) {
        self.purge_queue();
        if stage == Stage::Call {
            if take(&mut self.queue, who) {
                self.charges[usize::from(who)] -= 1;
            }
            take(&mut self.places, who);
        }
    }

    /// A call that did not ask again in time gets its charge back, when the queue is next read.
    fn purge_queue(&mut self) {
        let gone: Vec<_> =
            self.queue.iter().filter(|(_, dropped)| *dropped == 0).copied().collect();
        for (who, _) in gone {
            self.charges[usize::from(who)] -= 1;
        }
        self.queue.retain(|(_, dropped)| *dropped > 0);
    }

    fn settled(&mut self, who: Who, verdict: Verdict, answer: &Answer<'_>) -> Verified {
        let Reply::Settled(is_ours) = answer.reply else {
            return Err(format!("{:?} is no answer to a settlement", answer.reply));
        };
        let releases = matches!(verdict, Verdict::Release | Verdict::Refund);
        let had_place = take(&mut self.places, who);
        let was_queued = releases && take(&mut self.queue, who);
        if was_queued || (had_place && verdict == Verdict::Refund) {
            self.charges[usize::from(who)] -= 1;
        }
        let owned = self.record.filter(|record| record.owner.is_some_and(|(of, _)| of == who));
        let Some(mut record) = owned else {
            if !same_record(answer.before.record, answer.after.record) {
                return Err("a settlement changes a record whose claim is not its own".into());
            }
            return if *is_ours {
                Err("a settlement takes another's claim for its own".into())
            } else {
                Ok(())
            };
        };
        if !is_ours {
            return Err("the owner's settlement is told that the claim is not its own".into());
        }
        record.owner = None;
        if verdict == Verdict::Done {
            record.result = Some((who, RESULT.min(record.until)));
        } else if releases && !record.sticky && record.result.is_none() {
            self.record = None;
            return Ok(());
        } else {
            record.sticky = true;
        }
        if answer.after.record.is_none() {
            return Err("a record is forgotten whose call may have been executed".into());
        }
        self.record = Some(record);
        Ok(())
    }

    /// The tenant's level changes by what was charged and given back, and by nothing else. The
    /// budget is charged for each start, and never given back.
    fn level_is_exact(&self, before: &Self, answer: &Answer<'_>) -> Verified {
        let sum =
            |account: &Self| account.charges.iter().map(|charge| i64::from(*charge)).sum::<i64>();
        let change = answer.after.ceiling - answer.before.ceiling;
        let due = sum(before) - sum(self);
        if change != 1_000 * due {
            return Err(format!(
                "the tenant's level changes by {:+}, and by charges and refunds it changes by {due:+}",
                change as f64 / 1e3
            ));
        }
        let is_start = match (answer.op, answer.reply) {
            (Op::Ask { stage: Stage::Renew, .. }, _) => false,
            (Op::Ask { who, stage, .. }, Reply::Granted { .. }) => {
                let owner = before.record.and_then(|record| record.owner);
                stage != Stage::Call || owner.is_none_or(|(owner, _)| owner != who)
            }
            _ => false,
        };
        let spent = answer.before.budget - answer.after.budget;
        if spent != i64::from(is_start) * 1_000 {
            return Err(format!("the budget falls by {} calls", spent as f64 / 1e3));
        }
        Ok(())
    }

    /// What stands in the store is what the answers mean.
    fn stands(&self, view: &View) -> Verified {
        let running = view.flights.iter().filter(|(_, end)| *end > 0);
        if !running.eq(self.places.iter().filter(|(_, end)| *end > 0)) {
            let running = view.flights.iter().filter(|(_, end)| *end > 0).count();
            return Err(format!(
                "{running} places in flight are held, {} were given, or they end at another time",
                self.places.len()
            ));
        }
        match (view.record.filter(|record| record.until > 0), self.record) {
            (None, None) => Ok(()),
            (Some(kept), Some(claimed)) => claimed.is_kept(&kept),
            (None, Some(claimed)) if claimed.sticky || claimed.result.is_some() => {
                Err("a record is forgotten whose call may have been executed".into())
            }
            (None, Some(_)) => Err("a claim was granted, and there is no record".into()),
            (Some(_), None) => Err("there is a record, and nobody holds or held a claim".into()),
        }
    }

    /// The same, so much later. What the record's retention has ended is forgiven.
    pub fn after(&mut self, ms: Ms) {
        let pass = |time: &mut Ms| *time = (*time - ms).max(0);
        self.places.iter_mut().chain(&mut self.queue).for_each(|(_, end)| pass(end));
        self.places.retain(|(_, end)| *end > 0);
        if let Some(record) = &mut self.record {
            pass(&mut record.until);
            record.owner.iter_mut().for_each(|(_, lease)| pass(lease));
            record.result.iter_mut().for_each(|(_, until)| pass(until));
            if record.until == 0 {
                self.record = None;
            }
        }
    }

    /// The record is lost, or its retention has ended.
    pub fn lose_record(&mut self) {
        self.record = None;
    }

    pub fn lose_places(&mut self) {
        self.places.clear();
    }

    /// All is full again, and empty.
    pub fn lose_everything(&mut self) {
        *self = Self::default();
    }

    /// The same with its calls under other names.
    pub fn renamed(&self, names: &Names) -> Self {
        let mut charges = [0; 3];
        for (index, charge) in self.charges.iter().enumerate() {
            charges[usize::from(names.of(index as Who))] = *charge;
        }
        let record = self.record.map(|record| Claimed {
            owner: record.owner.map(|(who, lease)| (names.of(who), lease)),
            result: record.result.map(|(who, until)| (names.of(who), until)),
            ..record
        });
        let (places, queue) = (names.of_list(&self.places), names.of_list(&self.queue));
        Self { record, places, queue, charges }
    }

    /// Whether there is a record.
    pub fn has_record(&self) -> bool {
        self.record.is_some()
    }

    /// The content that the record is about.
    pub fn content(&self) -> Option<Content> {
        self.record.map(|record| record.content)
    }
}

impl Claimed {
    fn is_kept(&self, kept: &Record) -> Verified {
        let must = |fine: bool, what: &str| fine.then_some(()).ok_or_else(|| what.to_owned());
        let seconds = |ms: Ms| f64::from(ms) / 1e3;
        must(self.content == kept.content, "the record is of other content than was granted")?;
        must(self.sticky == kept.sticky, "the record's sticky bit is not what it must be")?;
        if self.until != kept.until {
            let (kept, due) = (seconds(kept.until), seconds(self.until));
            return Err(format!("the record ends in {kept} s, and must in {due} s"));
        }
        let state = kept.state;
        match (self.owner, self.result) {
            (Some((owner, lease)), _) => {
                let holds = state == RecordState::InFlight && kept.holder == Some(owner);
                must(holds, "the claim is not the owner's")?;
                if kept.lease != lease {
                    let (kept, due) = (seconds(kept.lease), seconds(lease));
                    return Err(format!(
                        "the claim's lease ends in {kept} s, and {due} s were granted"
                    ));
                }
            }
            (None, Some((_, 0))) => {
                let is_over = matches!(state, RecordState::Tombstone | RecordState::Done);
                must(is_over, "a result has ended, and the record does not say so")?;
            }
            (None, Some(_)) => must(state == RecordState::Done, "the record's result is hidden")?,
            (None, None) => {
                must(
                    state == RecordState::Uncertain,
                    "the record does not say that it is uncertain",
                )?;
            }
        }
        match self.result {
            Some((by, until)) if until > 0 => {
                let is_kept = kept.body == Some(by) && kept.body_until == Some(until);
                must(is_kept, "the result is not the one that was settled, or ends at another time")
            }
            Some(_) => Ok(()),
            None => must(kept.body_until.is_none(), "there is a result that nobody settled"),
        }
    }
}

/// A record that has ended may be forgotten, and a result that has ended may become a tombstone.
fn same_record(before: Option<Record>, after: Option<Record>) -> bool {
    match (before, after) {
        (Some(before), after) if before.until == 0 => after.is_none() || after == Some(before),
        (Some(before), Some(after)) if before.body_until == Some(0) => {
            after == before
                || (after.state == RecordState::Tombstone
                    && after.body_until.is_none()
                    && after.until == before.until)
        }
        _ => before == after,
    }
}

fn put(list: &mut Vec<(Who, Ms)>, who: Who, end: Ms) {
    list.retain(|(of, _)| *of != who);
    list.push((who, end));
    list.sort_unstable();
}

/// Whether it was there.
fn take(list: &mut Vec<(Who, Ms)>, who: Who) -> bool {
    let before = list.len();
    list.retain(|(of, _)| *of != who);
    list.len() < before
}
