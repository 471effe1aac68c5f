//! Behaviour over real sockets in real-kernel networks, one per file: the listing of this folder is what the layer does.

mod nats_behave_as_named;
