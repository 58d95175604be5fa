//! Retries as the other languages' gRPC libraries do them, which tonic leaves to its callers: by
//! the service config's retry policy and throttling, and the server's pushback (gRFC A6).

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

use crate::verdict::{code, name};

/// The parts of a service config that a loop needs.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceConfig {
    method_config: Vec<MethodConfig>,
    retry_throttling: Option<Throttling>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MethodConfig {
    #[serde(default)]
    retry_policy: Policy,
}

/// Stops all repeats while many calls fail.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    max_tokens: f64,
    token_ratio: f64,
}

/// Repeats the calls of one process.
#[derive(Debug)]
pub struct Retries {
    policy: Policy,
    throttling: Option<Throttling>,
    /// A failure takes one, a success gives `token_ratio`; the upper half admits repeats.
    tokens: RwLock<f64>,
}

/// When a call is repeated; by default never.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    max_attempts: usize,
    initial_backoff: String,
    max_backoff: String,
    backoff_multiplier: f64,
    retryable_status_codes: Vec<String>,
}

impl Retries {
    /// As the file says that all languages share. It has one `methodConfig`.
    pub fn of(service_config: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut config: ServiceConfig = serde_json::from_str(service_config)?;
        let method = config.method_config.pop().ok_or("the service config has no methodConfig")?;
        Ok(Self {
            policy: method.retry_policy,
            throttling: config.retry_throttling,
            tokens: RwLock::new(config.retry_throttling.map_or(0.0, |it| it.max_tokens)),
        })
    }

    /// Calls until it is answered, or the policy, the server or the time says stop. `attempt` gets
    /// its number and the time that is left, and sends the same `client_token` each time.
    pub async fn run<T, F: Future<Output = Result<T, Status>>>(
        &self,
        timeout: Duration,
        mut attempt: impl FnMut(usize, Duration) -> F,
    ) -> Result<T, Status> {
        let deadline = Instant::now() + timeout;
        let policy = &self.policy;
        let mut backoff = seconds(&policy.initial_backoff);
        let mut made = 0;
        loop {
            let failed = match attempt(made, deadline - Instant::now()).await {
                Ok(answer) => {
                    self.succeeded();
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            made += 1;
            let pushback = pushback(&failed);
            let is_retryable = policy.retries(code(&failed));
            if is_retryable || matches!(pushback, Pushback::Stop) {
                self.failed();
            }
            let wait = match pushback {
                Pushback::Stop => return Err(failed),
                _ if !is_retryable || self.is_throttled() => return Err(failed),
                Pushback::After(delay) => delay,
                Pushback::Absent => backoff.mul_f64(0.8 + 0.4 * fastrand::f64()),
            };
            if made >= policy.max_attempts || Instant::now() + wait >= deadline {
                return Err(failed);
            }
            sleep(wait).await;
            backoff = backoff.mul_f64(policy.backoff_multiplier).min(seconds(&policy.max_backoff));
        }
    }

    fn succeeded(&self) {
        if let Some(Throttling { max_tokens, token_ratio }) = self.throttling {
            let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
            *tokens = (*tokens + token_ratio).min(max_tokens);
        }
    }

    fn failed(&self) {
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        *tokens = (*tokens - 1.0).max(0.0);
    }

    fn is_throttled(&self) -> bool {
        let tokens = *self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        self.throttling.is_some_and(|it| tokens <= it.max_tokens / 2.0)
    }
}

impl Policy {
    fn retries(&self, code: Code) -> bool {
        self.retryable_status_codes.iter().any(|known| known == name(code))
    }
}

enum Pushback {
    Absent,
    After(Duration),
    Stop,
}

fn pushback(failed: &Status) -> Pushback {
    let Some(value) = failed.metadata().get("grpc-retry-pushback-ms") else {
        return Pushback::Absent;
    };
    match value.to_str().ok().and_then(|text| text.parse().ok()) {
        Some(milliseconds) => Pushback::After(Duration::from_millis(milliseconds)),
        // Negative, or no number.
        None => Pushback::Stop,
    }
}

/// Protobuf's JSON of a duration, such as `0.2s`; zero for anything else.
fn seconds(text: &str) -> Duration {
    let number = text.strip_suffix('s').and_then(|number| number.parse().ok());
    Duration::from_secs_f64(number.unwrap_or_default())
}
