//! The shop in axum: which request is which call.

use crate::shop::{Add, Answer, End, Login, Shop, Theme, Visitor};
use axum::Router;
use axum::extract::{Form, FromRequestParts, State};
use axum::http::{HeaderMap, StatusCode, header, request::Parts};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use std::convert::Infallible;
use std::sync::Arc;

/// Serves until `stop` comes true, then finishes the requests under way.
pub(crate) async fn serve(
    shop: Arc<Shop>,
    listener: std::net::TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let site = Router::new()
        .route("/", get(basket))
        .route("/add", post(add))
        .route("/order", post(order))
        .route("/theme", post(theme))
        .route("/login", post(login))
        .route("/sessions", get(sessions))
        .route("/end", post(end))
        .route("/logout", post(logout))
        .route("/logout-everywhere", post(logout_everywhere))
        .route("/ready", get(ready))
        .with_state(shop);
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    axum::serve(listener, site).with_graceful_shutdown(stop).await
}

type Here = State<Arc<Shop>>;

async fn basket(State(shop): Here, visitor: Visitor) -> Answer {
    shop.basket(visitor).await
}

async fn add(State(shop): Here, visitor: Visitor, Form(add): Form<Add>) -> Answer {
    shop.add(visitor, add).await
}

async fn order(State(shop): Here, visitor: Visitor) -> Answer {
    shop.order(visitor).await
}

async fn theme(State(shop): Here, visitor: Visitor, Form(theme): Form<Theme>) -> Answer {
    shop.theme(visitor, theme).await
}

async fn login(State(shop): Here, visitor: Visitor, Form(login): Form<Login>) -> Answer {
    shop.login(visitor, login).await
}

async fn sessions(State(shop): Here, visitor: Visitor) -> Answer {
    shop.sessions(visitor).await
}

async fn end(State(shop): Here, visitor: Visitor, Form(end): Form<End>) -> Answer {
    shop.end(visitor, end).await
}

async fn logout(State(shop): Here, visitor: Visitor) -> Answer {
    shop.logout(visitor).await
}

async fn logout_everywhere(State(shop): Here, visitor: Visitor) -> Answer {
    shop.logout_everywhere(visitor).await
}

async fn ready(State(shop): Here) -> Answer {
    shop.ready()
}

impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = Infallible;

    async fn from_request_parts(request: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let headers = &request.headers;
        let cookies = headers.get_all(header::COOKIE).iter();
        let browser = headers.get(header::USER_AGENT);
        Ok(Self::new(
            cookies.filter_map(|cookies| cookies.to_str().ok()),
            browser.and_then(|browser| browser.to_str().ok()),
        ))
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        let location = self.location.map(str::to_owned);
        for (name, value) in [(header::LOCATION, location), (header::SET_COOKIE, self.cookie)] {
            if let Some(Ok(value)) = value.map(|value| value.parse()) {
                headers.insert(name, value);
            }
        }
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, headers, Html(self.body)).into_response()
    }
}
