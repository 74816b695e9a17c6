"""Long runs whose committed output, results/*.json, the chapters read."""
