"""Device meshes, sharding of parameters, and several processes."""
