"""Can this capture be trusted?"""
