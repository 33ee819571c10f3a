"""Files and folders of results: whole or not there, one run at a time, told by their content."""
