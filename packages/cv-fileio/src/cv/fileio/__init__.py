"""Load and dump files; read and write through storage backends."""
