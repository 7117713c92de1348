"""What an adapter is made of, as arrays that know no model: steering vectors, router and probes, and their files."""
