"""The paper's protocol, metrics, scores and what their differences are worth."""
