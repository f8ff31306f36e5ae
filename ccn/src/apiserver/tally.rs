//! What an API server counts while it works, for whoever scrapes its metrics.
//!
//! Routes are counted by their template and methods by those that there are: what callers make up cannot make
//! these tables grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use crate::api::error::ApiError;

/// Labels of a metric, in order.
type Labels = Vec<(&'static str, String)>;

/// The upper bounds of durations, in seconds: from a look at records to an order that waits for gateways.
const DURATIONS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// The counts. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally(Arc<Counts>);

#[derive(Debug)]
pub(super) struct Counts {
    /// By `route`, `method` and `status`.
    pub(super) requests: Family<Labels, Counter>,
    /// By `route` and `method`, in seconds.
    pub(super) durations: Family<Labels, Histogram, fn() -> Histogram>,
    /// By `order` and `outcome`.
    pub(super) orders: Family<Labels, Counter>,
    /// By `order`.
    pub(super) repeated: Family<Labels, Counter>,
    turned_away: [AtomicU64; TurnedAway::ALL.len()],
    under_way: AtomicU64,
    connections: AtomicU64,
}

impl Default for Counts {
    fn default() -> Self {
        Counts {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            orders: Family::default(),
            repeated: Family::default(),
            turned_away: Default::default(),
            under_way: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        }
    }
}

/// Why a connection or a request goes no further than the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnedAway {
    /// No TLS came of the connection: also a certificate that nobody signed whom the server trusts.
    Handshake,
    /// A token that is not known.
    UnknownToken,
    /// The name in a certificate that is good is not known.
    UnknownCertificate,
    /// Nothing was shown.
    Nobody,
    /// Who asks may not.
    Forbidden,
    /// Too many requests of one caller.
    Rate,
    /// Too many requests under way.
    UnderWay,
}

impl TurnedAway {
    pub(super) const ALL: [TurnedAway; 7] = [
        TurnedAway::Handshake,
        TurnedAway::UnknownToken,
        TurnedAway::UnknownCertificate,
        TurnedAway::Nobody,
        TurnedAway::Forbidden,
        TurnedAway::Rate,
        TurnedAway::UnderWay,
    ];

    /// The `reason` of the metric.
    pub(super) fn name(self) -> &'static str {
        match self {
            TurnedAway::Handshake => "handshake",
            TurnedAway::UnknownToken => "unknown-token",
            TurnedAway::UnknownCertificate => "unknown-certificate",
            TurnedAway::Nobody => "nothing-shown",
            TurnedAway::Forbidden => "forbidden",
            TurnedAway::Rate => "rate",
            TurnedAway::UnderWay => "under-way",
        }
    }

    /// Whether it is for who the caller is, and not for how much it asks.
    pub(super) fn is_of_identity(self) -> bool {
        !matches!(self, TurnedAway::Rate | TurnedAway::UnderWay)
    }
}

/// One more of something, for as long as it lives.
#[derive(Debug)]
pub(super) struct Open<'a>(&'a AtomicU64);

impl<'a> Open<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Open(count)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that is open, for as long as this lives.
#[derive(Debug)]
pub(super) struct Connection(Tally);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts an order or a request when it is over, also when nobody waits for its end any more.
struct AtEnd<F: FnMut(Option<String>)> {
    outcome: Option<String>,
    count: F,
}

impl<F: FnMut(Option<String>)> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.count)(self.outcome.take());
    }
}

impl Tally {
    pub(super) fn counts(&self) -> &Counts {
        &self.0
    }

    pub(super) fn turned_away(&self, why: TurnedAway) {
        self.0.turned_away[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connection(&self) -> Connection {
        self.0.connections.fetch_add(1, Ordering::Relaxed);
        Connection(self.clone())
    }

    /// An order that was carried out before under the same name.
    pub(super) fn repeated(&self, order: &'static str) {
        let labels = vec![("order", order.to_owned())];
        self.0.repeated.get_or_create(&labels).inc();
    }

    /// Counts an order by what comes of it, all its waiting included.
    pub(super) async fn order<T>(
        &self,
        order: &'static str,
        doing: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let count = |outcome: Option<String>| {
            let outcome = outcome.unwrap_or_else(|| "abandoned".to_owned());
            let labels = vec![("order", order.to_owned()), ("outcome", outcome)];
            self.0.orders.get_or_create(&labels).inc();
        };
        let mut end = AtEnd {
            outcome: None,
            count,
        };
        let done = doing.await;
        end.outcome = Some(match &done {
            Ok(_) => "done".to_owned(),
            Err(error) => error.code.name().to_owned(),
        });
        done
    }
}

impl Counts {
    pub(super) fn turned_away(&self, why: TurnedAway) -> u64 {
        self.turned_away[why as usize].load(Ordering::Relaxed)
    }

    pub(super) fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Relaxed)
    }

    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}

/// Counts a request and how long its answer takes, from the outside: also one that the gate turns away.
pub(super) async fn measure(State(tally): State<Tally>, request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or("none", MatchedPath::as_str).to_owned();
    let method = method(request.method());
    let of_route = vec![("route", route), ("method", method.to_owned())];
    let counts = tally.counts();
    let _under_way = Open::new(&counts.under_way);
    let begun = Instant::now();
    let count = |status: Option<String>| {
        let took = begun.elapsed().as_secs_f64();
        counts.durations.get_or_create(&of_route).observe(took);
        let mut labels = of_route.clone();
        labels.push(("status", status.unwrap_or_else(|| "hung-up".to_owned())));
        counts.requests.get_or_create(&labels).inc();
    };
    let mut end = AtEnd {
        outcome: None,
        count,
    };
    let response = next.run(request).await;
    end.outcome = Some(format!("{}xx", response.status().as_u16() / 100));
    drop(end);
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::routing::get;
    use axum::{Router, middleware};
    use tower::ServiceExt;

    use super::*;
    use crate::api::error::ErrorCode;

    fn requests(tally: &Tally, route: &str, method: &str, status: &str) -> u64 {
        let labels = [("route", route), ("method", method), ("status", status)];
        let labels = labels.map(|(name, value)| (name, value.to_owned()));
        tally
            .counts()
            .requests
            .get(&labels.to_vec())
            .map_or(0, |count| count.get())
    }

    #[tokio::test]
    async fn requests_are_counted_by_template_whatever_callers_make_up() {
        let tally = Tally::default();
        let never = get(std::future::pending::<StatusCode>);
        let router = Router::new()
            .route("/v1/links/{link}", get(async || StatusCode::OK))
            .route("/v1/never", never)
            .fallback(async || StatusCode::NOT_FOUND)
            .layer(middleware::from_fn_with_state(tally.clone(), measure));
        let ask = |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path);
            router.clone().oneshot(request.body(Body::empty()).unwrap())
        };
        for number in 0..5 {
            ask("GET", &format!("/v1/links/{number}")).await.unwrap();
            ask("GET", &format!("/{number}")).await.unwrap();
            ask(&format!("X{number}"), "/").await.unwrap();
        }
        // Who hangs up is counted, too.
        tokio::select! {
            biased;
            answer = ask("GET", "/v1/never") => panic!("{answer:?}"),
            () = std::future::ready(()) => {}
        }
        for (route, method, status, count) in [
            ("/v1/links/{link}", "GET", "2xx", 5),
            ("none", "GET", "4xx", 5),
            ("none", "other", "4xx", 5),
            ("/v1/never", "GET", "hung-up", 1),
        ] {
            assert_eq!(
                requests(&tally, route, method, status),
                count,
                "{method} {route} {status}"
            );
        }
        assert_eq!(tally.counts().under_way(), 0);
    }

    #[tokio::test]
    async fn orders_are_counted_by_outcome() {
        let tally = Tally::default();
        let late = ApiError::new(ErrorCode::Timeout, "late");
        tally.order("link", async { Ok(()) }).await.unwrap();
        let _ = tally.order("link", async { Err::<(), _>(late) }).await;
        drop(Box::pin(tally.order::<()>("link", std::future::pending())));
        tokio::select! {
            biased;
            _ = tally.order::<()>("link", std::future::pending()) => {}
            () = std::future::ready(()) => {}
        }
        for (outcome, count) in [("done", 1), ("timeout", 1), ("abandoned", 1)] {
            let labels = vec![
                ("order", "link".to_owned()),
                ("outcome", outcome.to_owned()),
            ];
            let counted = tally.counts().orders.get(&labels).map(|count| count.get());
            assert_eq!(counted, Some(count), "{outcome}");
        }
    }

    #[test]
    fn what_is_turned_away_is_counted_under_its_own_reason() {
        let tally = Tally::default();
        for (index, why) in TurnedAway::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, index, "{why:?}");
            tally.turned_away(why);
            assert_eq!(tally.counts().turned_away(why), 1, "{why:?}");
        }
    }
}
