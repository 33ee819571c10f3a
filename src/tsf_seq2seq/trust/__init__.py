"""Are the explanations true? Faithfulness of ω, TSEM as error estimate, tumours, significance."""
