//! Waiting for what must come, with an end to it.

use std::time::Duration;

/// How long anything may take before it counts as lost. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Awaits something that must come.
///
/// # Panics
/// When it does not.
pub async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("waited {PATIENCE:?} in vain for: {what}"),
    }
}

/// Asks again and again until the answer is `Some`.
///
/// # Panics
/// When it never is.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tick.tick().await;
        }
    };
    soon(what, asking).await
}
