//! LAYER 5: other people's protocols. Each edge programs against [`Node`](crate::node::Node) or the public handles alone and can be deleted
//! without touching a line below it; edges do not know each other.

#[cfg(feature = "actix-session")]
pub mod actix_session;
#[cfg(feature = "axum-session")]
pub mod axum_session;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "poem")]
pub mod poem;
#[cfg(feature = "resp")]
pub mod resp;
#[cfg(feature = "rocket")]
pub mod rocket;
#[cfg(feature = "salvo")]
pub mod salvo;
#[cfg(feature = "tower-sessions")]
pub mod tower_sessions;
