//! Retries as the other languages' gRPC libraries do them, which tonic leaves to its callers: by
//! the service config's retry policy and the server's pushback (gRFC A6).

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
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MethodConfig {
    #[serde(default)]
    retry_policy: Policy,
}

/// When a call is repeated; by default never.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    max_attempts: usize,
    initial_backoff: String,
    max_backoff: String,
    backoff_multiplier: f64,
    retryable_status_codes: Vec<String>,
}

impl Policy {
    /// The policy of the file that all languages share. It has one `methodConfig`.
    pub fn of(service_config: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut config: ServiceConfig = serde_json::from_str(service_config)?;
        let method = config.method_config.pop().ok_or("the service config has no methodConfig")?;
        Ok(method.retry_policy)
    }

    /// Calls until it is answered, or the policy, the server or the time says stop. `attempt` gets
    /// its number and the time that is left, and sends the same `client_token` each time.
    pub async fn run<T, F: Future<Output = Result<T, Status>>>(
        &self,
        timeout: Duration,
        mut attempt: impl FnMut(usize, Duration) -> F,
    ) -> Result<T, Status> {
        let deadline = Instant::now() + timeout;
        let mut backoff = seconds(&self.initial_backoff);
        let mut made = 0;
        loop {
            let failed = match attempt(made, deadline - Instant::now()).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            made += 1;
            let wait = match pushback(&failed) {
                Pushback::Stop => return Err(failed),
                Pushback::After(delay) => delay,
                Pushback::Absent if !self.retries(code(&failed)) => return Err(failed),
                Pushback::Absent => backoff.mul_f64(0.8 + 0.4 * fastrand::f64()),
            };
            if made >= self.max_attempts || Instant::now() + wait >= deadline {
                return Err(failed);
            }
            sleep(wait).await;
            backoff = backoff.mul_f64(self.backoff_multiplier).min(seconds(&self.max_backoff));
        }
    }

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
