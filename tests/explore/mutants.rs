//! Scripts with one rule taken out, each of which breaks a promise.
//!
//! A change of one of these lines in a script needs the same change here. The explorer is worth
//! only what it finds.

use crate::scripts::Scripts;

pub struct Mutant {
    pub name: &'static str,
    pub calls: Calls,
    from: &'static str,
    to: &'static str,
}

/// Which calls show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// Two of the same content.
    Alike,
    /// The second one of other content.
    Other,
    /// Two of the same content that queue.
    Queued,
}

impl Mutant {
    /// The scripts without the rule.
    pub fn scripts(&self) -> Scripts {
        let real = Scripts::real();
        let found = real.admit.matches(self.from).count() + real.settle.matches(self.from).count();
        assert_eq!(found, 1, "{}: the scripts hold this {found} times: {}", self.name, self.from);
        Scripts {
            admit: real.admit.replace(self.from, self.to),
            settle: real.settle.replace(self.from, self.to),
        }
    }
}

pub const MUTANTS: [Mutant; 16] = [
    Mutant {
        name: "no fence: whoever settles closes the claim",
        calls: Calls::Alike,
        from: "ours = lease and state == 'in_flight' and holder == nonce and ends_at > m",
        to: "ours = lease and state == 'in_flight' and ends_at > m",
    },
    Mutant {
        name: "no sticky bit at a takeover",
        calls: Calls::Alike,
        from: "if standing == 'foreign' or standing == 'uncertain' then sticky = '1' end",
        to: "",
    },
    Mutant {
        name: "no sticky bit after an uncertain attempt",
        calls: Calls::Other,
        from: "if is_attempt and uncertain == 1 then sticky = '1' end",
        to: "",
    },
    Mutant {
        name: "a release that does not ask for the sticky bit",
        calls: Calls::Other,
        from: "elseif releases and sticky == '0' and body_until == -1 then",
        to: "elseif releases and body_until == -1 then",
    },
    Mutant {
        name: "a refund without the lease",
        calls: Calls::Alike,
        from: "(removed and verdict == 'refund')",
        to: "verdict == 'refund'",
    },
    Mutant {
        name: "no busy: a running lease is no obstacle",
        calls: Calls::Alike,
        from: "elseif state == 'in_flight' and runs(held, m) then",
        to: "elseif false then",
    },
    Mutant {
        name: "no mending by nonce",
        calls: Calls::Alike,
        from: "if state == 'in_flight' and holder == nonce then",
        to: "if false then",
    },
    Mutant {
        name: "attempts and renewals of anybody",
        calls: Calls::Alike,
        from: "if (is_attempt or ask == 'renew') and standing ~= 'ours' then return close('lost') end",
        to: "",
    },
    Mutant {
        name: "a repeated ask pays again",
        calls: Calls::Alike,
        from: "local mended = not is_attempt and standing == 'ours'",
        to: "local mended = false",
    },
    Mutant {
        name: "a renewal of the place alone",
        calls: Calls::Alike,
        from: "redis.call('HSET', KEYS[7], 'times', pack('times', lease, ends_at, body_until))",
        to: "",
    },
    Mutant {
        name: "a settlement that does not free the place",
        calls: Calls::Alike,
        from: "removed = redis.call('ZREM', KEYS[3], nonce) == 1 and runs(score, m)",
        to: "removed = runs(score, m)",
    },
    Mutant {
        name: "a live result that is not handed out",
        calls: Calls::Alike,
        from: "if body and body ~= distrusted then return close('replay', body) end",
        to: "",
    },
    Mutant {
        name: "a result that never ends",
        calls: Calls::Alike,
        from: "if body_until <= m then\n        local reply = close('tombstone')",
        to: "if false then\n        local reply = close('tombstone')",
    },
    Mutant {
        name: "no mismatch: other content takes the record over",
        calls: Calls::Other,
        from: "elseif kept_version ~= version or kept_print ~= fingerprint then",
        to: "elseif false then",
    },
    Mutant {
        name: "the charge of a queued call that leaves is given back twice",
        calls: Calls::Queued,
        from: "if has_left then tenant.queued = max(0, tenant.queued - 1) end",
        to: "",
    },
    Mutant {
        name: "a queued call that leaves keeps its charge",
        calls: Calls::Queued,
        from: "has_left = try('ZREM', KEYS[4], unpack(paid)) == 1",
        to: "try('ZREM', KEYS[4], unpack(paid))",
    },
];
