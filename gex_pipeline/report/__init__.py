"""A published output as one page a person can read: report.html, report.json, contact-sheet.png."""
