//! The shop in actix-web: which request is which call.

use crate::shop::{Add, Answer, End, Login, Shop, Theme, Visitor};
use actix_web::body::BoxBody;
use actix_web::dev::Payload;
use actix_web::http::{StatusCode, header};
use actix_web::web::{Data, Form, get, post};
use actix_web::{App, FromRequest, HttpRequest, HttpResponse, HttpServer, Responder};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;

/// Threads that serve; each has a runtime of its own, and the node is on the program's.
const WORKERS: usize = 2;

/// How long requests under way may take to finish, in seconds: longer than any waits for its session.
const FINISH_SECONDS: u64 = 20;

/// Serves until `stop` comes true, then finishes the requests under way.
pub(crate) async fn serve(
    shop: Arc<Shop>,
    listener: std::net::TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let site = move || {
        App::new()
            .app_data(Data::from(shop.clone()))
            .route("/", get().to(basket))
            .route("/add", post().to(add))
            .route("/order", post().to(order))
            .route("/theme", post().to(theme))
            .route("/login", post().to(login))
            .route("/sessions", get().to(sessions))
            .route("/end", post().to(end))
            .route("/logout", post().to(logout))
            .route("/logout-everywhere", post().to(logout_everywhere))
            .route("/ready", get().to(is_ready))
    };
    let server = HttpServer::new(site)
        .workers(WORKERS)
        .shutdown_timeout(FINISH_SECONDS)
        .disable_signals()
        .listen(listener)?
        .run();
    let handle = server.handle();
    tokio::spawn(async move {
        stop.await;
        handle.stop(true).await;
    });
    server.await
}

async fn basket(shop: Data<Shop>, visitor: Visitor) -> Answer {
    shop.basket(visitor).await
}

async fn add(shop: Data<Shop>, visitor: Visitor, Form(add): Form<Add>) -> Answer {
    shop.add(visitor, add).await
}

async fn order(shop: Data<Shop>, visitor: Visitor) -> Answer {
    shop.order(visitor).await
}

async fn theme(shop: Data<Shop>, visitor: Visitor, Form(theme): Form<Theme>) -> Answer {
    shop.theme(visitor, theme).await
}

async fn login(shop: Data<Shop>, visitor: Visitor, Form(login): Form<Login>) -> Answer {
    shop.login(visitor, login).await
}

async fn sessions(shop: Data<Shop>, visitor: Visitor) -> Answer {
    shop.sessions(visitor).await
}

async fn end(shop: Data<Shop>, visitor: Visitor, Form(end): Form<End>) -> Answer {
    shop.end(visitor, end).await
}

async fn logout(shop: Data<Shop>, visitor: Visitor) -> Answer {
    shop.logout(visitor).await
}

async fn logout_everywhere(shop: Data<Shop>, visitor: Visitor) -> Answer {
    shop.logout_everywhere(visitor).await
}

async fn is_ready(shop: Data<Shop>) -> Answer {
    shop.ready()
}

impl FromRequest for Visitor {
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let headers = request.headers();
        let browser = headers.get(header::USER_AGENT);
        ready(Ok(Self::new(
            headers
                .get_all(header::COOKIE)
                .filter_map(|cookies| cookies.to_str().ok()),
            browser.and_then(|browser| browser.to_str().ok()),
        )))
    }
}

impl Responder for Answer {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::build(status);
        response.content_type("text/html; charset=utf-8");
        if let Some(location) = self.location {
            response.insert_header((header::LOCATION, location));
        }
        if let Some(cookie) = self.cookie {
            response.insert_header((header::SET_COOKIE, cookie));
        }
        response.body(self.body)
    }
}
