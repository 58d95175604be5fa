//! What callers of the store do: the gateway's side of the protocol, with every fault of a message.
//!
//! A call is one in a gateway: its asks with one nonce, its attempts, its settlement. Each call runs
//! in a replica of its own, so that it may crash or pause alone.

use crate::world::{Content, Op, Reply, Stage, Verdict, Who};

/// What a call of a scenario is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallSpec {
    pub content: Content,
    /// Whether its gateway has the key of results that another gateway has sealed.
    pub opens: bool,
}

/// How far a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Call {
    pub phase: Phase,
    /// The result that it could not open, and asks to take over.
    pub distrust: Option<Who>,
    /// The reply of one of its asks was lost.
    pub unheard: bool,
    /// An earlier attempt may have been executed.
    pub tainted: bool,
    /// It was granted, and it is not certain that Connect has executed nothing of it.
    pub may_be_executed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It asks. `stands`: something of its asks may stand in the store, and it settles if it leaves.
    Asking { stands: bool },
    /// It was granted, and may send at any time: its first attempt, or its second.
    Running { attempt: u8 },
    /// It has settled, and has not heard that this was done.
    Settling(Verdict),
    /// It has its answer; or its gateway has crashed.
    Ended,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    Heard,
    ReplyLost,
    Lost,
    /// It arrives at some later time, or never. Its sender gives up on it.
    Late,
    /// It arrives, the reply is heard, and it may arrive once more.
    Doubled,
}

impl Delivery {
    pub const ALL: [Self; 5] =
        [Self::Heard, Self::ReplyLost, Self::Lost, Self::Late, Self::Doubled];

    pub fn arrives(self) -> bool {
        matches!(self, Self::Heard | Self::ReplyLost | Self::Doubled)
    }

    pub fn is_heard(self) -> bool {
        matches!(self, Self::Heard | Self::Doubled)
    }

    pub fn stays_on_the_way(self) -> bool {
        matches!(self, Self::Late | Self::Doubled)
    }
}

impl Call {
    pub const NEW: Self = Self {
        phase: Phase::Asking { stands: false },
        distrust: None,
        unheard: false,
        tainted: false,
        may_be_executed: false,
    };

    /// Everything that the call may send now.
    pub fn sends(&self, who: Who, spec: CallSpec) -> Vec<Op> {
        let content = spec.content;
        let ask = |stage| Op::Ask { who, stage, content, distrust: None };
        let settle = |verdict| Op::Settle { who, verdict };
        match self.phase {
            Phase::Asking { stands } => {
                let first = Op::Ask { who, stage: Stage::Call, content, distrust: self.distrust };
                let leave = stands.then(|| settle(Verdict::Refund));
                [first].into_iter().chain(leave).collect()
            }
            Phase::Running { attempt } => {
                let mut sends = vec![
                    settle(Verdict::Done),
                    settle(Verdict::Release),
                    settle(Verdict::Uncertain),
                    ask(Stage::Renew),
                ];
                if attempt == 1 {
                    sends.push(settle(Verdict::Refund));
                    sends.push(ask(Stage::Attempt { uncertain: false }));
                    sends.push(ask(Stage::Attempt { uncertain: true }));
                }
                sends
            }
            Phase::Settling(verdict) => vec![settle(verdict)],
            Phase::Ended => Vec::new(),
        }
    }

    /// Whether that may happen to the message. A fault that changes nothing is left out.
    pub fn may_befall(&self, op: Op, delivery: Delivery) -> bool {
        match op {
            // The call goes on in any case, and renews again.
            Op::Ask { stage: Stage::Renew, .. } => {
                matches!(delivery, Delivery::Heard | Delivery::Late)
            }
            Op::Settle { .. } if matches!(self.phase, Phase::Settling(_)) => {
                delivery != Delivery::Lost
            }
            _ => true,
        }
    }

    /// Sends the message; `reply` is what it heard.
    pub fn sent(&mut self, spec: CallSpec, op: Op, reply: Option<&Reply>) {
        match op {
            Op::Settle { verdict, .. } => self.settled(verdict, reply.is_some()),
            Op::Ask { stage: Stage::Renew, .. } => {}
            Op::Ask { stage: Stage::Attempt { uncertain }, .. } => {
                self.tainted |= uncertain;
                match reply {
                    Some(Reply::Granted { .. }) => self.phase = Phase::Running { attempt: 2 },
                    // It ends with the error of the attempt before.
                    _ => self.begin_settling(if uncertain {
                        Verdict::Uncertain
                    } else {
                        Verdict::Release
                    }),
                }
            }
            Op::Ask { stage: Stage::Call, .. } => self.asked(spec, reply),
        }
    }

    fn asked(&mut self, spec: CallSpec, reply: Option<&Reply>) {
        self.distrust = None;
        let Some(reply) = reply else {
            self.unheard = true;
            self.phase = Phase::Asking { stands: true };
            return;
        };
        match reply {
            Reply::Granted { .. } => {
                self.phase = Phase::Running { attempt: 1 };
                self.may_be_executed = true;
            }
            Reply::AskAgain(_) => self.phase = Phase::Asking { stands: true },
            Reply::Busy(_) => self.phase = Phase::Asking { stands: self.unheard },
            Reply::Replay(by) if !spec.opens => {
                self.distrust = Some(*by);
                self.phase = Phase::Asking { stands: self.unheard };
            }
            // Answered, or refused.
            _ if self.unheard => self.phase = Phase::Settling(Verdict::Refund),
            _ => self.end(),
        }
    }

    fn settled(&mut self, verdict: Verdict, is_heard: bool) {
        self.begin_settling(verdict);
        if is_heard {
            self.end();
        }
    }

    fn begin_settling(&mut self, verdict: Verdict) {
        let is_certain = matches!(verdict, Verdict::Release | Verdict::Refund);
        if is_certain && !self.tainted {
            self.may_be_executed = false;
        }
        self.phase = Phase::Settling(verdict);
    }

    /// Its gateway crashes, or it has nothing more to do.
    pub fn end(&mut self) {
        let may_be_executed = self.may_be_executed;
        *self = Self { phase: Phase::Ended, may_be_executed, ..Self::NEW };
    }
}
